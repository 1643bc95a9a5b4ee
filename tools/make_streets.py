"""Draws the streets data set: python tools/make_streets.py data/streets."""

import argparse
import sys

import mmseg_ext.quick_imports  # noqa: F401

from mmseg_ext.datasets.streets import make_streets
from mmseg_ext.errors import errors_in_a_line


@errors_in_a_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draws street scenes with labels, in Cityscapes' classes and folder layout; "
        "the folder annotations holds the labels in COCO's forms too.",
        epilog='example: python tools/make_streets.py data/streets --train 500 --size 256 512',
    )
    parser.add_argument('dir', help='output folder')
    parser.add_argument('--train', type=int, default=500, help='scenes for training (500)')
    parser.add_argument('--val', type=int, default=100, help='scenes for validation (100)')
    parser.add_argument('--extra', type=int, default=200, help='scenes with coarse labels (200)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(256, 512),
        metavar=('H', 'W'),
        help='size of a scene (256 512)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the scenes (0)')
    args = parser.parse_args()
    try:
        new = make_streets(
            args.dir,
            num_train=args.train,
            num_val=args.val,
            num_extra=args.extra,
            size=tuple(args.size),
            seed=args.seed,
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{args.dir}: drawn' if new else f'{args.dir} already holds these scenes')


if __name__ == '__main__':
    main()
