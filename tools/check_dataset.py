"""Checks the data of a config: pairs, sizes, label values, classes; exits with 1 on problems.

Example: python tools/check_dataset.py configs/hmsa/hrnet18s_ocr_camvid.py --data-root data/camvid
"""

import argparse
import sys

import mmseg_ext.quick_imports  # noqa: F401

from rich.console import Console

from mmseg_ext.config import prepare
from mmseg_ext.datasets.checks import check_splits
from mmseg_ext.errors import errors_in_a_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    prepare.add_common_arguments(parser)
    return parser.parse_args()


@errors_in_a_line()
def main() -> None:
    args = vars(parse_args())
    console = Console(highlight=False, markup=False, soft_wrap=True)
    problems = 0
    cfg = prepare.load_config(args.pop('config'), **args)
    for split, report in check_splits(cfg, decode_images=True, progress='reading'):
        report.show(split, console)
        problems += len(report.problems)
    sys.exit(f'{problems} problems' if problems else 0)


if __name__ == '__main__':
    main()
