"""Trains a small classifier on class folders, for tools/pssl_labels.py.

Example: python tools/train_classifier.py --images data/shapes/train --out work_dirs/pssl/a.pth
"""

import argparse
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

import torch

from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.papers.pssl.train_classifier import train_classifier


@errors_in_a_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=Path, required=True, help='folder of class folders')
    parser.add_argument('--val', type=Path, help='folder of class folders for the accuracy')
    parser.add_argument('--out', type=Path, required=True, help='file of the classifier')
    parser.add_argument('--width', type=float, default=0.5, help='factor of the channels (0.5)')
    parser.add_argument('--size', type=int, default=96, help='side of a picture in pixels (96)')
    parser.add_argument('--epochs', type=int, default=6, help='passes over the images (6)')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights and order (0)')
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu or cuda (default: cuda where there is a GPU)',
    )
    args = parser.parse_args()
    accuracy = train_classifier(**vars(args))
    on = args.val or args.images
    print(f'{args.out}: predicts the class of {100 * accuracy:.1f} % of the images in {on}')


if __name__ == '__main__':
    main()
