"""Imports only go down the floors of the package and form no circle; no file is too long."""

import ast
from pathlib import Path

import pytest

MAX_LINES = 400  # of a file
PACKAGE = Path(__file__).parents[1] / 'mmseg_ext'
FLOORS = (  # from the ground up
    {'errors'},
    {'layers', 'visualization'},
    {'losses'},
    {'checkpoints', 'config', 'datasets'},
    {'baselines', 'segmentors', 'evaluation'},
    {'papers', 'convert'},
    {'benchmark', 'inference', 'engine'},
)
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
FLOOR['host'] = FLOOR['processes'] = FLOOR['quick_imports'] = 0


def module_of(path: Path) -> str:
    """Name of a file as imports have it, without the package: ``papers.hmsa``."""
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob('*.py'))}
assert len(MODULES) > 100


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports, anywhere in the file."""
    path = MODULES[module]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        source = node.module or ''
        if node.level:
            folder = path.parent
            for _ in range(node.level - 1):
                folder = folder.parent
            source = '.'.join(('mmseg_ext', *folder.relative_to(PACKAGE).parts)) + (
                f'.{source}' if source else ''
            )
        if source.split('.')[0] != 'mmseg_ext':
            continue
        source = source.removeprefix('mmseg_ext').removeprefix('.')
        for alias in node.names:
            submodule = f'{source}.{alias.name}' if source else alias.name
            targets.add(submodule if submodule in MODULES else source)
    return targets - {''}


IMPORTS = {module: imports_of(module) for module in MODULES}


def folder_of(module: str) -> str:
    return module.split('.')[0]


@pytest.mark.parametrize('module', [module for module in MODULES if module])
def test_imports_go_down(module: str) -> None:
    for target in IMPORTS[module]:
        assert FLOOR[folder_of(target)] <= FLOOR[folder_of(module)], f'{module} imports {target}'


@pytest.mark.parametrize('path', MODULES.values(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_too_long(path: Path) -> None:
    count = len(path.read_text().splitlines())
    assert count <= MAX_LINES, f'{path} has {count} lines: split it, one job a file'


def test_visualization_draws_arrays_and_knows_nothing_else() -> None:
    for module, targets in IMPORTS.items():
        if module.startswith('visualization'):
            folders = {folder_of(target) for target in targets}
            assert folders <= {'errors', 'layers', 'visualization'}, module


def test_papers_do_not_import_each_other() -> None:
    for module, targets in IMPORTS.items():
        if module.startswith('papers.'):
            paper = module.split('.')[1]
            others = {t for t in targets if t.startswith('papers.') and t.split('.')[1] != paper}
            assert not others, f'{module} imports {others}'


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A path that ends where it began; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for target in sorted(graph.get(node, ())):
                if ring := visit(target, [*path, node]):
                    return ring
            done.add(node)
        return []

    return next((ring for node in graph if (ring := visit(node, []))), [])


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {m: targets - {m} for m, targets in IMPORTS.items() if MODULES[m].stem != '__init__'}
    assert not circle(files)


def test_no_folders_import_each_other_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for module, targets in IMPORTS.items():
        if module:
            folder = folder_of(module)
            folders.setdefault(folder, set()).update({folder_of(t) for t in targets} - {folder})
    assert not circle(folders)


def test_a_circle_is_found() -> None:
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c', 'b']
