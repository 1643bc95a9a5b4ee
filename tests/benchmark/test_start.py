"""The comparison of a short training with the host's own tool."""

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from tests.tiny import CONFIG_DIR

SCRIPT = Path(__file__).parents[2] / 'benchmarks' / 'start.py'
# Stands in for a training: three iterations, and an end that takes a while.
TRAIN = """
import sys, time
print('Epoch(val) [1][1/2]')
if 'bad' in sys.argv[1]:
    sys.exit('no data')
for i in range(1, 4):
    print(f'Epoch(train)  [1][ {i}/3]', flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def start() -> ModuleType:
    spec = importlib.util.spec_from_file_location('start', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_tools_are_there(start: ModuleType) -> None:
    assert start.OURS.is_file() and start.HOST.is_file()


def test_times_end_where_they_say(start: ModuleType, tmp_path: Path) -> None:
    tool = tmp_path / 'train.py'
    tool.write_text(TRAIN)
    first, whole, computing = start.run(tool, tmp_path / 'config.py', tmp_path)
    assert whole - first > 0.5 and 0 < computing < whole
    with pytest.raises(RuntimeError, match='no data'):
        start.run(tool, tmp_path / 'bad.py', tmp_path)


def test_the_config_is_short_and_reads_what_was_drawn(start: ModuleType, tmp_path: Path) -> None:
    path = start.write_config(str(CONFIG_DIR / 'fcn/hrnet18s_streets.py'), tmp_path, 3)
    text = path.read_text()
    assert 'max_epochs=1' in text and str(tmp_path / 'streets') in text
    assert len(list((tmp_path / 'streets').glob('leftImg8bit/train/*/*'))) == 6


def test_the_table_has_medians_and_ratios(start: ModuleType) -> None:
    stream = io.StringIO()
    ours, host = [(1.0, 9.0, 5.0), (2.0, 8.0, 5.0), (3.0, 9.0, 5.0)], [(4.0, 9.0, 10.0)]
    Console(file=stream, width=100).print(start.table_of(ours, host, 'CPU'))
    assert '0.50' in stream.getvalue() and '1.00' in stream.getvalue()
