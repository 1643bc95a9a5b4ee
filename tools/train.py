"""Trains a model.

Example: python tools/train.py configs/hmsa/hrnet18s_ocr_streets.py --max-epochs 2 --init none
"""

import argparse
from os.path import expanduser

import mmseg_ext.quick_imports  # noqa: F401

from mmseg_ext.checkpoints.read import reading_once
from mmseg_ext.config import prepare
from mmseg_ext.engine import launch
from mmseg_ext.errors import errors_in_a_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    prepare.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=expanduser,
        metavar='PATH',
        help='continue from the latest checkpoint, or from PATH',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', 'bf16', 'fp16'),
        help='mixed precision; without a value fp16 on a GPU and bf16 on a CPU',
    )
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep the channels of a pixel together in memory, which is faster on a CPU',
    )
    parser.add_argument('--seed', type=int, help='seed of all random numbers')
    parser.add_argument(
        '--crop-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of training crops in pixels, and of what depends on it; resizes stay',
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--max-iters', type=int, metavar='N', help='number of iterations; scales the schedule'
    )
    length.add_argument(
        '--max-epochs', type=int, metavar='N', help='number of epochs; scales the schedule'
    )
    parser.add_argument(
        '--init',
        type=expanduser,
        default='config',
        metavar='{config,none,PATH}',
        help='starting weights: those of the config (default), none, or a checkpoint file',
    )
    parser.add_argument(
        '--init-classes',
        nargs='*',
        metavar='NAME',
        help='keep the rows of the classifier in the starting weights for the classes that are in '
        'the data too: the data set of these weights (cityscapes), or the names of their classes; '
        'without a value the names in the checkpoint',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="multiply the learning rate by the batch of all processes, divided by the recipe's",
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='run all checks and two batches, and write no file'
    )
    return parser.parse_args()


@errors_in_a_line()
def main() -> None:
    args = vars(parse_args())
    run = launch.dry_run if args.pop('dry_run') else launch.train
    with reading_once():
        run(prepare.prepare_training(args.pop('config'), **args))


if __name__ == '__main__':
    main()
