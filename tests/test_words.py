"""Words that make code hard to read: fillers as names, docstrings without a subject, typography."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILLERS = frozenset(
    [
        'own',
        'one',
        'some',
        'both',
        'found',
        'known',
        'kept',
        'asked',
        'given',
        'rest',
        'others',
        'other',
        'seen',
        'place',
        'places',
        'part',
        'parts',
        'more',
        'wanted',
        'mine',
        'how',
        'there',
        'here',
        'told',
        'cut',
        'cuts',
        'whole',
        'wrapped',
        'floored',
        'square',
        'mates',
        'strangers',
        'near',
        'off',
        'sides',
        'how_many',
        'what',
        'which',
        'thing',
        'things',
        'stuff',
        'left_over',
        'right_one',
        'same',
        'such',
        'said',
        'shown',
        'got',
        'had',
        'been',
    ]
)
MOST_FILLERS = 0.005  # of all bound names
OPENING = re.compile(r'(Of|What|That|Those|So many|How|Whoever|Who|Where)\b')
SINGLE_BACKTICKS = re.compile(r'(?<!`)`[^`\n]+`(?!`)')
FILES = [
    path for folder in ('mmseg_ext', 'tools') for path in sorted((ROOT / folder).rglob('*.py'))
]
assert FILES


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ''


def argument_entries(text: str) -> Iterator[str]:
    """Descriptions of the section ``Args:`` of a docstring."""
    inside = False
    for line in text.splitlines():
        if re.match(r'\w[\w ]*:\s*$', line):
            inside = line.startswith('Args')
        elif inside and (match := re.match(r'    \*{0,2}\w+: (.*)$', line)):
            yield match[1]


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = node.exc.args[0]
            if isinstance(text, ast.JoinedStr) and text.values:
                text = text.values[-1]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield node.lineno, text.value


def test_names_are_not_fillers() -> None:
    names = [
        (f'{path.relative_to(ROOT)}:{line}', name)
        for path in FILES
        for line, name in bound_names(ast.parse(path.read_text()))
    ]
    fillers = [(where, name) for where, name in names if name.strip('_') in FILLERS]
    assert len(fillers) <= MOST_FILLERS * len(names), fillers


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_messages_are_plain(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for text in docstrings(tree):
        assert not OPENING.match(text), text
        assert not SINGLE_BACKTICKS.search(text), text
        for entry in argument_entries(text):
            assert not OPENING.match(entry) and not entry[:1].islower(), entry
    for line, text in messages(tree):
        assert not text.endswith('.') or text.endswith('...'), f'line {line}: {text}'


def test_hard_words_are_found() -> None:
    tree = ast.parse('def f(own):\n    """Of x.\n\n    Args:\n        own: it.\n    """\n')
    assert [name for _, name in bound_names(tree)] == ['f', 'own']
    (text,) = (text for text in docstrings(tree) if text)
    assert OPENING.match(text) and list(argument_entries(text)) == ['it.']
