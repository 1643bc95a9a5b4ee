"""The commands of ``tools`` in the test's process: a result, or the sentence they end with."""

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest import mock

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger

from mmseg_ext.errors import UserError
from tests.reliability.tally import is_sentence
from tests.tiny_run import forget_visualizers, write_config, write_folder

TOOLS = Path(__file__).parents[2] / 'tools'
PROBLEM = 'problem: '  # before a sentence of tools/check_dataset.py


class CommandError(Exception):
    """A command that ended in another way than well or with a sentence."""


@cache
def main_of(tool: str) -> Callable[[], None]:
    return runpy.run_path(str(TOOLS / f'{tool}.py'))['main']


def run(tool: str, *arguments: object) -> str:
    """Output of a command that ends well.

    Raises:
        UserError: The command ends with a sentence, which is the message.
        CommandError: It ends in another way.
    """
    forget_visualizers()
    for manager in (MessageHub, MMLogger):  # each command is a process of its own
        manager._instance_dict.clear()
    output, errors = (TextIOWrapper(BytesIO(), 'utf-8', write_through=True) for _ in range(2))
    with (
        mock.patch('sys.argv', [tool, *map(str, arguments)]),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        end = _end(main_of(tool))
    text = ''.join(stream.buffer.getvalue().decode() for stream in (output, errors))
    if 'Traceback' in text:
        raise CommandError(text)
    if end in (None, 0):
        return text
    problems = [line for line in text.splitlines() if line.startswith(PROBLEM)]
    if str(end) == f'{len(problems)} problems' and all(map(is_sentence, problems)):
        raise UserError(problems[0].removeprefix(PROBLEM))
    if str(end).startswith('error: '):
        raise UserError(str(end).removeprefix('error: '))
    raise CommandError(f'ended with {end!r}: {text}')


def _end(main: Callable[[], None]) -> object:
    """Status or last line of a command; an error that passes it is the traceback of a user."""
    try:
        main()
    except SystemExit as stop:
        return stop.code
    except UserError as error:
        raise CommandError(f'the sentence is a traceback: {error}') from error
    return None


def names_in_tools() -> set[str]:
    return {path.stem for path in TOOLS.glob('*.py')}


# A training of one iteration, as fast as the host allows.
SMALL = """
common.update(type='FolderDataset')
del common['img_suffix']
train_pipeline[:2] = [dict(type='LoadImage'), dict(type='LoadSegMap')]
test_pipeline[1] = dict(type='LoadSegMap')  # the host's loader of images stays
for loader, split, pipeline in (
    (train_dataloader, 'train', train_pipeline), (val_dataloader, 'val', test_pipeline)
):
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
    loader['dataset'] = dict(**common, data_prefix=prefix, pipeline=pipeline)
model['backbone'].update(
    num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1), stem_channels=4,
    base_channels=4)
model['decode_head'].update(in_channels=8, in_index=1)
model['test_cfg'] = dict(mode='whole')
default_hooks['checkpoint'].pop('save_best')
del loader, split, pipeline, prefix
"""


def write_experiment(folder: Path) -> Path:
    """A folder with ``data`` of two pairs a split, and ``tiny.py``; returns the config."""
    root = write_folder(folder / 'data', train=2, val=2)
    return write_config(folder / 'tiny.py', root, extra=SMALL)


@contextmanager
def fast() -> Iterator[None]:
    """Leaves out what takes the host longer than the run: formatting and collecting garbage."""
    with mock.patch.object(Config, 'pretty_text', property(repr)), mock.patch('gc.collect'):
        yield
