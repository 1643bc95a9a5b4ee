"""Labels images with a trained model: for each a PNG of classes and one of their probabilities.

A run that was stopped goes on where it was. Several processes share the images:

    python tools/auto_label.py CONFIG CHECKPOINT data/cityscapes/leftImg8bit/train_extra OUT
    torchrun --nproc_per_node=8 tools/auto_label.py CONFIG CHECKPOINT IMAGES OUT --threshold 0.9
"""

import argparse
import os
from pathlib import Path

import torch
from rich.console import Console

from mmseg_ext.config import prepare
from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.inference.auto_label import auto_label, summary_table


def main() -> None:
    local_rank = os.environ.get('LOCAL_RANK', 0)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('images', type=Path, help='folder, with its sub-folders')
    parser.add_argument('out', type=Path, help='folder to write; sub-folders as in IMAGES')
    parser.add_argument(
        '--threshold',
        type=float,
        help='ignore pixels of less probability and write no probabilities; else the reader of the '
        'labels chooses the threshold',
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation of the config')
    parser.add_argument(
        '--device',
        default=f'cuda:{local_rank}' if torch.cuda.is_available() else 'cpu',
        help="cpu, cuda or cuda:1; the process's own GPU where there is one",
    )
    args = vars(parser.parse_args())
    rank, world_size = (
        int(os.environ.get(name, n)) for name, n in (('RANK', 0), ('WORLD_SIZE', 1))
    )
    with errors_in_a_line(stopped='stopped: the same command goes on where it was'):
        config = prepare.load_config(args.pop('config'))
        written = auto_label(config, **args, rank=rank, world_size=world_size)
    if written is None:
        print(f'process {rank + 1} of {world_size} is done')
    else:
        Console().print(summary_table(written))
        print(
            f'{written["images"]} images are labelled in {args["out"]}; auto_label.png shows some'
        )


if __name__ == '__main__':
    main()
