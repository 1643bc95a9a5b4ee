"""Labels images with a trained model: writes a PNG of classes and a PNG of their probabilities.

The same command continues a stopped run. Several processes share the images:

    python tools/auto_label.py CONFIG CHECKPOINT data/cityscapes/leftImg8bit/train_extra OUT
    torchrun --nproc_per_node=8 tools/auto_label.py CONFIG CHECKPOINT IMAGES OUT --threshold 0.9
"""

import argparse
import os
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

import torch
from rich.console import Console

from mmseg_ext.config import prepare
from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.inference.auto_label import auto_label
from mmseg_ext.inference.auto_label_summary import reliability_table, summary_table


def main() -> None:
    local_rank = os.environ.get('LOCAL_RANK', 0)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of this config')
    parser.add_argument('images', type=Path, help='folder of images; sub-folders are included')
    parser.add_argument('out', type=Path, help='output folder; it gets the sub-folders of IMAGES')
    parser.add_argument(
        '--threshold',
        type=float,
        nargs='+',
        metavar='T',
        help='ignore pixels of lower probability and write no probabilities; a value, or a value '
        'for each class (default: write probabilities; the reader of the labels has the threshold)',
    )
    parser.add_argument(
        '--true-labels',
        type=Path,
        metavar='DIR',
        help='compare probabilities with the true labels in DIR: reliability.png and the expected '
        'calibration error of each class',
    )
    parser.add_argument(
        '--tta', action='store_true', help='use the test-time augmentation of the config'
    )
    parser.add_argument(
        '--device',
        default=f'cuda:{local_rank}' if torch.cuda.is_available() else 'cpu',
        help='cpu, cuda or cuda:1 (default: the GPU of this process, or cpu without a GPU)',
    )
    args = vars(parser.parse_args())
    if args['threshold'] is not None and len(args['threshold']) == 1:
        (args['threshold'],) = args['threshold']
    rank, world_size = (
        int(os.environ.get(name, n)) for name, n in (('RANK', 0), ('WORLD_SIZE', 1))
    )
    with errors_in_a_line(stopped='stopped: the same command continues the run'):
        config = prepare.load_config(args.pop('config'))
        written = auto_label(config, **args, rank=rank, world_size=world_size)
    if written is None:
        print(f'process {rank + 1} of {world_size} is done')
    else:
        Console().print(summary_table(written))
        if 'reliability' in written:
            Console().print(reliability_table(written))
        print(f'{written["images"]} images are labelled in {args["out"]}; see auto_label.png there')


if __name__ == '__main__':
    main()
