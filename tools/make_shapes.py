"""Draws pictures of single objects in class folders: python tools/make_shapes.py data/shapes."""

import argparse

import mmseg_ext.quick_imports  # noqa: F401

from mmseg_ext.datasets.shapes import make_shapes
from mmseg_ext.errors import errors_in_a_line


@errors_in_a_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description='Draws pictures of single objects in class folders, and their masks.',
        epilog='example: python tools/make_shapes.py data/shapes --train 120 --size 96',
    )
    parser.add_argument('dir', help='output folder')
    parser.add_argument('--train', type=int, default=120, help='pictures per class (120)')
    parser.add_argument('--val', type=int, default=20, help='the same for validation (20)')
    parser.add_argument('--size', type=int, default=96, help='height and width in pixels (96)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the pictures (0)')
    args = parser.parse_args()
    new = make_shapes(
        args.dir, num_train=args.train, num_val=args.val, size=args.size, seed=args.seed
    )
    print(f'{args.dir}: drawn' if new else f'{args.dir} already holds these pictures')


if __name__ == '__main__':
    main()
