"""Measures fast operations against their released forms: time, peak memory, largest difference.

Example: python tools/benchmark_ops.py rmi centroids --device cuda
"""

import argparse
import sys
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

from rich.console import Console
from rich.progress import track

from mmseg_ext.benchmark.op_benchmark import find_benchmarks, results_table, run_benchmark
from mmseg_ext.config.checks import check_device
from mmseg_ext.errors import errors_in_a_line

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('tests.oracles', 'tests.papers')


@errors_in_a_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME', help='operations (default: all)')
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument('--repeats', type=int, default=7, help='timed runs of each form (7)')
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    available = find_benchmarks(PACKAGES)
    unknown = [name for name in args.names if name not in available]
    if unknown:
        parser.error(
            f'no operation is called {", ".join(unknown)}: choose from {", ".join(available)}'
        )
    check_device(args.device)
    names = args.names or list(available)
    results = [
        run_benchmark(name, PACKAGES, args.device, args.repeats)
        for name in track(names, 'Measuring', console=Console(stderr=True), transient=True)
    ]
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(results_table(results, args.device))


if __name__ == '__main__':
    main()
