"""Tests a checkpoint: IoU of each class, mIoU, and the mIoU of the best constant prediction.

Example: python tools/test.py configs/hmsa/hrnet18s_ocr_streets.py work_dirs/x/iter_100.pth --tta
"""

import argparse

from mmseg_ext.engine import launch
from mmseg_ext.engine.refusals import errors_in_a_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    launch.add_common_arguments(parser)
    parser.add_argument('checkpoint', help='path or address')
    parser.add_argument('--out', metavar='DIR', help='write the predicted classes as PNG')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write predictions over the images')
    parser.add_argument('--wait-time', type=float, default=2, help='of --show, in seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    with errors_in_a_line():
        launch.test(launch.prepare_test(args.pop('config'), args.pop('checkpoint'), **args))


if __name__ == '__main__':
    main()
