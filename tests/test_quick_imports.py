"""Commands collect no garbage while they import, and do when they run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted((Path(__file__).parents[1] / 'tools').glob('*.py'))
CHECK = """
import mmseg_ext.quick_imports
import gc
from mmseg_ext.errors import errors_in_a_line
assert not gc.isenabled() and not gc.get_freeze_count()
with errors_in_a_line():
    assert gc.isenabled() and gc.get_freeze_count() > 1000
"""


def test_garbage_is_collected_from_the_start_of_the_command() -> None:
    subprocess.run([sys.executable, '-c', CHECK], check=True, timeout=60)


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.stem)
def test_a_tool_imports_it_before_every_package(path: Path) -> None:
    imports = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(node.module)
    first = next(n for n in imports if n.partition('.')[0] not in sys.stdlib_module_names)
    assert first == 'mmseg_ext.quick_imports'
