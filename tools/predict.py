"""Predicts an image, a folder of images or a video, and writes overlays and masks.

Example: python tools/predict.py CONFIG CHECKPOINT street.jpg --out pictures --explain
"""

import argparse
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

import torch

from mmseg_ext.config import prepare
from mmseg_ext.config.task import TASKS, set_task
from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.inference.predict import find_inputs, predict
from mmseg_ext.inference.predictor import Predictor


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of this config')
    parser.add_argument(
        'input', type=Path, help='image, folder (sub-folders are included) or video'
    )
    parser.add_argument('--out', type=Path, required=True, help='output folder')
    parser.add_argument(
        '--explain', action='store_true', help='also draw the maps that explain predictions'
    )
    parser.add_argument(
        '--pixel', type=int, nargs=2, metavar=('X', 'Y'), help='explain this pixel of each image'
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu, cuda or cuda:1 (default: a GPU, or cpu without a GPU)',
    )
    parser.add_argument('--task', choices=TASKS, help='task of OneFormer (that of the config)')
    parser.add_argument(
        '--compile', action='store_true', help='compile the network by torch.compile'
    )
    args = parser.parse_args(arguments)
    with errors_in_a_line():
        find_inputs(args.input)  # finds errors before the model is loaded
        config = prepare.load_config(args.config)
        if args.task:
            set_task(config, args.task)
        predictor = Predictor(
            config,
            args.checkpoint,
            args.device,
            explain=args.explain,
            pixel=args.pixel,
            compiled=args.compile,
        )
        predict(predictor, args.input, args.out.expanduser())
    print(f'The pictures are in {args.out}')


if __name__ == '__main__':
    main()
