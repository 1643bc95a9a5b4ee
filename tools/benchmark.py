"""Measures speed and memory of models against the nearest models of MMSegmentation, in one run.

Both models get the same random images, in turn. Training includes the losses and the optimiser of
the config. The nearest model replaces classes of this package by those of MMSegmentation: each
class declares its host_counterpart. --against names other models. --profile lists the operations
that take the most time instead.

Example: python tools/benchmark.py configs/hmsa/hrnet18s_ocr_streets.py --modes fp32 bf16+compile
"""

import argparse
import sys

import mmseg_ext.quick_imports  # noqa: F401

from rich.console import Console
from rich.progress import track

from mmseg_ext.benchmark.model_benchmark import (
    MODES,
    benchmark,
    results_table,
    runs_of,
    write_results,
)
from mmseg_ext.benchmark.profile import profile_models, profile_tables
from mmseg_ext.errors import errors_in_a_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--against',
        nargs='+',
        default=['host'],
        metavar='CONFIG',
        help='configs to compare with; host (default) is the nearest model of MMSegmentation',
    )
    modes = f'{", ".join(MODES)} (default: each), or a combination joined by +'
    parser.add_argument('--modes', nargs='+', default=MODES, metavar='MODE', help=modes)
    parser.add_argument(
        '--batch-size', type=int, nargs='+', default=[2], metavar='N', help='batch sizes (2)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="size of the images (default: the config's crop_size)",
    )
    parser.add_argument('--profile', action='store_true', help='list operations by their time')
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument('--repeats', type=int, default=5, help='timed steps of each model (5)')
    parser.add_argument('--out', metavar='FILE', help='write all numbers as JSON')
    return parser.parse_args()


def print_profiles(args: argparse.Namespace) -> None:
    options = dict(modes=args.modes, batch=args.batch_size[0], size=args.size, device=args.device)
    with errors_in_a_line():
        Console().print(profile_tables(profile_models(args.configs, **options), args.device))


def main() -> None:
    args = parse_args()
    if args.profile:
        print_profiles(args)
        return
    options = dict(
        against=args.against,
        modes=args.modes,
        batches=args.batch_size,
        size=args.size,
        device=args.device,
        repeats=args.repeats,
    )
    total = len(args.configs) * len(args.against) * len(runs_of(args.modes)) * len(args.batch_size)
    results = []
    with errors_in_a_line():
        runs = benchmark(args.configs, **options)
        console = Console(stderr=True)
        for result in track(runs, 'Measuring', total, console=console, transient=True):
            results.append(result)
            if args.out:
                write_results(args.out, results, args.device)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(results_table(results, args.device))
    failed = sum(bool(result.error) for result in results)
    sys.exit(f'{failed} of {total} measurements failed' if failed else 0)


if __name__ == '__main__':
    main()
