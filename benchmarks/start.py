"""Times a short training with tools/train.py and with the host's own tool, in turn.

Example: python benchmarks/start.py configs/fcn/hrnet18s_streets.py --iterations 60 --repeats 5

Both commands get the same config file, of batch 2 on drawn streets of 128x256 pixels. Printed are
medians of the seconds until the first iteration is logged, of the seconds until the process has
ended, and of the seconds of computing (user and system, workers too), which depend less on what
else the machine does.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import mmseg
from rich import box
from rich.console import Console
from rich.table import Table

from mmseg_ext.benchmark.measuring import machine, ratio
from mmseg_ext.config import overrides
from mmseg_ext.config.prepare import load_config
from mmseg_ext.datasets.streets import make_streets

OURS = Path(__file__).parents[1] / 'tools' / 'train.py'
HOST = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'train.py'
SIZE, BATCH = (128, 256), 2
COLUMNS = ('first iteration', 'whole command', 'computing')


def write_config(path: str, folder: Path, iterations: int) -> Path:
    """A config that both tools read: an epoch of so many iterations, each of them logged."""
    data = folder / 'streets'
    make_streets(data, num_train=BATCH * iterations, num_val=2, size=SIZE, progress=False)
    cfg = load_config(path)
    overrides.set_data_root(cfg, str(data))
    overrides.set_crop_size(cfg, SIZE)
    overrides.set_training_length(cfg, max_epochs=1)
    overrides.set_initial_weights(cfg, 'none')
    cfg.train_dataloader.batch_size = BATCH
    cfg.default_hooks.logger.interval = 1
    cfg.pop('auto_scale_lr', None)
    cfg.dump(str(folder / 'config.py'))
    return folder / 'config.py'


def run(tool: Path, config: Path, work_dir: Path) -> tuple[float, float, float]:
    """Seconds until the first iteration and until the end, and seconds of computing.

    Raises:
        RuntimeError: The training failed, or logged no iteration.
    """
    command = [sys.executable, str(tool), str(config), '--work-dir', str(work_dir)]
    begin, first, lines = time.perf_counter(), None, []
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert job.stdout
    for line in job.stdout:
        lines.append(line)
        if first is None and re.search(r'\(train\).*\[ *1/', line):
            first = time.perf_counter() - begin
    _, status, usage = os.wait4(job.pid, 0)
    if status or first is None:
        raise RuntimeError(f'{" ".join(command)} failed:\n{"".join(lines[-20:])}')
    return first, time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def table_of(
    ours: Sequence[tuple[float, ...]], host: Sequence[tuple[float, ...]], title: str
) -> Table:
    """Medians of both tools, and their ratios."""
    table = Table('', *COLUMNS, title=title, box=box.SIMPLE_HEAD, title_justify='left')
    medians = [[median(column) for column in zip(*runs, strict=True)] for runs in (ours, host)]
    for name, values in zip(('tools/train.py', "host's train.py"), medians, strict=True):
        table.add_row(name, *(f'{value:.1f} s' for value in values))
    table.add_row('ratio', *(ratio(*pair) for pair in zip(*medians, strict=True)))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a streets model that counts epochs')
    parser.add_argument('--iterations', type=int, default=60, help='of a training (60)')
    parser.add_argument('--repeats', type=int, default=5, help='trainings by each tool (5)')
    args = parser.parse_args()
    times: dict[Path, list[tuple[float, float, float]]] = {OURS: [], HOST: []}
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(args.config, Path(folder), args.iterations)
        for number in range(args.repeats):
            for tool, runs in times.items():
                runs.append(run(tool, config, Path(folder) / f'{tool.parts[-3]}_{number}'))
    title = f'{machine("cpu")}; {args.iterations} iterations'
    Console(width=100).print(table_of(times[OURS], times[HOST], title))


if __name__ == '__main__':
    main()
