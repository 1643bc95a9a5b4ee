"""Converts released weights of a paper to this package, or weights of a wrapped model to plain.

Example: python tools/convert_checkpoint.py hmsa cityscapes_ocrnet.HRNet_Mscale.pth hmsa.pth
"""

import argparse
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

import torch

from mmseg_ext.convert import convert, converters, read_weights
from mmseg_ext.errors import errors_in_a_line


@errors_in_a_line()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'paper',
        choices=sorted(converters()),
        help='paper of the weights; plain removes wrapper heads',
    )
    parser.add_argument(
        'src', type=Path, nargs='+', help='released checkpoint, or its several files'
    )
    parser.add_argument('dst', type=Path, help='output file')
    args = parser.parse_args()
    weights = convert(args.paper, *map(read_weights, args.src))
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=weights), args.dst)
    print(f'{len(weights)} tensors -> {args.dst}')


if __name__ == '__main__':
    main()
