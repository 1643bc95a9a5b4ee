"""Tests a checkpoint: IoU of each class, mIoU, and the mIoU of the best constant prediction.

A config of data with segments also reports panoptic quality (PQ) and average precision (AP).

Example: python tools/test.py configs/hmsa/hrnet18s_ocr_streets.py work_dirs/x/iter_100.pth --tta

With --format-only it writes files for the test server of Cityscapes, ADE20K or Mapillary.

With --table it tests many models and writes a table and a report. It uses the best checkpoint in
the work directory of each config, or that of CONFIG=CHECKPOINT. The same command continues a
stopped table.

Example: python tools/test.py --table configs/*/*_camvid.py --out work_dirs/camvid
"""

import argparse
import sys
from os.path import expanduser

import mmseg_ext.quick_imports  # noqa: F401

from rich.console import Console

from mmseg_ext.benchmark.table import make_table, rich_table
from mmseg_ext.config import prepare
from mmseg_ext.config.task import TASKS
from mmseg_ext.engine import launch
from mmseg_ext.errors import errors_in_a_line
from mmseg_ext.evaluation.server_files import write_server_files

CONTINUES = 'stopped: the same command continues the table'
ONE_MODEL = ('show', 'show_dir', 'work_dir', 'format_only', 'task', 'compile')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    prepare.add_common_arguments(parser)
    parser.add_argument('checkpoint', nargs='*', help='path or URL; with --table further models')
    parser.add_argument(
        '--table', action='store_true', help='test many models: CONFIG[=CHECKPOINT] ...'
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        type=expanduser,
        help='folder for the predicted classes, or for the table',
    )
    parser.add_argument(
        '--format-only',
        action='store_true',
        help='predict the test images without labels and write files for the test server to --out',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        type=expanduser,
        help='folder for images with the prediction drawn over them',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds per image of --show (2)'
    )
    parser.add_argument(
        '--tta', action='store_true', help='use the test-time augmentation of the config'
    )
    parser.add_argument('--task', choices=TASKS, help='task of OneFormer (that of the config)')
    parser.add_argument(
        '--compile', action='store_true', help='compile the network by torch.compile'
    )
    args = parser.parse_intermixed_args()
    if args.table and any(getattr(args, name) for name in ONE_MODEL):
        parser.error(
            '--show, --show-dir, --work-dir, --format-only, --task and --compile are for one '
            'model, not for --table'
        )
    if not args.table and len(args.checkpoint) != 1:
        parser.error('give a config and a checkpoint, or --table and configs')
    return args


@errors_in_a_line()
def main() -> None:
    args = vars(parse_args())
    table, config, checkpoint = (args.pop(name) for name in ('table', 'config', 'checkpoint'))
    if not table:
        format_only, compiled = args.pop('format_only'), args.pop('compile')
        cfg = prepare.prepare_test(config, checkpoint[0], **args)
        if format_only:
            write_server_files(cfg, args['out'])
        launch.test(cfg, compiled=compiled)
        return
    for name in (*ONE_MODEL, 'wait_time'):
        del args[name]
    out = args.pop('out') or 'work_dirs/table'
    with errors_in_a_line(stopped=CONTINUES):
        rows = make_table([config, *checkpoint], out, **args)
    if launch.is_first_process():
        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(rich_table(rows))
        print(f'{out} holds the table as Markdown, CSV and JSON, and report.html')
    if failed := [row for row in rows if row.failed]:
        sys.exit('\n'.join(f'error: {row.name}: {row.problem}' for row in failed))


if __name__ == '__main__':
    main()
