"""Labels the images of class folders by explanations of classifiers, to pre-train on them (PSSL).

The most important tenth of the pixels of an image gets its class. The same command continues a
stopped run. Several processes share the images by --shard, or under torchrun:

    python tools/pssl_labels.py --images data/shapes/train --models a.pth b.pth --out data/labels
    python tools/pssl_labels.py --images IMAGES --models MODELS.py --out OUT --shard 0/4

MODELS.py is Python code with a list of classifiers; see mmseg_ext/papers/pssl/classifiers.py.
"""

import argparse
import os
from pathlib import Path

import mmseg_ext.quick_imports  # noqa: F401

import torch
from rich.console import Console

from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.papers.pssl.classifiers import read_classifiers
from mmseg_ext.papers.pssl.explanations import SIZES
from mmseg_ext.papers.pssl.label_maker import Settings, make_labels
from mmseg_ext.papers.pssl.summary import parse_shard, summary_table


def main() -> None:
    env = {name: os.environ.get(name, n) for name, n in (('RANK', 0), ('WORLD_SIZE', 1))}
    gpu = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=Path, required=True, help='folder of class folders')
    parser.add_argument(
        '--models',
        nargs='+',
        required=True,
        metavar='FILE',
        help='classifiers: Python files, or files of tools/train_classifier.py',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for the labels')
    parser.add_argument(
        '--samples', type=int, default=50, help='noisy copies of an image per classifier (50)'
    )
    parser.add_argument(
        '--noise', type=float, default=0.1, help="noise as a fraction of the image's range (0.1)"
    )
    parser.add_argument(
        '--normalize',
        choices=sorted(SIZES),
        default='l2',
        help='size that the map of each classifier is divided by (l2); none as released',
    )
    parser.add_argument(
        '--explain',
        choices=('folder', 'top1'),
        default='folder',
        help="class that is explained: the folder's, or the one that the classifiers predict, "
        'where their classes are not the folders',
    )
    parser.add_argument(
        '--deciles', action='store_true', help='write all tenths, for other thresholds later'
    )
    parser.add_argument(
        '--masks', type=Path, metavar='DIR', help='compare with the masks of the objects in DIR'
    )
    parser.add_argument('--preview', type=int, default=0, metavar='N', help='draw N images')
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise (0)')
    parser.add_argument(
        '--shard',
        default=f'{env["RANK"]}/{env["WORLD_SIZE"]}',
        metavar='I/N',
        help='label every N-th image, from the I-th on (0/1: all)',
    )
    parser.add_argument(
        '--device',
        default=gpu if torch.cuda.is_available() else 'cpu',
        help='cpu, cuda or cuda:1 (default: the GPU of this process, or cpu without a GPU)',
    )
    args = parser.parse_args()
    with errors_in_a_line(stopped='stopped: the same command continues the run'):
        shard = parse_shard(args.shard)
        settings = Settings(
            args.samples, args.noise, args.normalize, args.explain, args.deciles, args.seed
        )
        written = make_labels(
            args.images,
            read_classifiers(args.models),
            args.out,
            settings,
            masks=args.masks,
            shard=shard,
            previews=args.preview,
            device=args.device,
        )
    if written is None:
        print(f'process {shard[0] + 1} of {shard[1]} is done')
        return
    Console().print(summary_table(written))
    print(f'{written["images"]} images of {len(written["classes"])} classes in {args.out}')


if __name__ == '__main__':
    main()
