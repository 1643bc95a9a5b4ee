"""Tables of the scores and costs of several models."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import distributed as dist

from mmseg_ext.benchmark.model_result import ModelResult, content_key, data_set_name, run_in_process
from mmseg_ext.benchmark.rows import NOT_TRAINED, Row, cells, columns_of, headings_of, notes
from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config import checks, prepare
from mmseg_ext.config.paper import paper_score
from mmseg_ext.engine import launch
from mmseg_ext.engine.distributed import check_torchrun
from mmseg_ext.errors import UserError

ROWS = 'rows'


def make_table(
    models: Iterable[str], out: str | Path, *, tta: bool = False, **common: Any
) -> list[Row]:
    """Tests models and writes the table; each process tests one model at a time.

    An existing result of the same config, checkpoint and data is used again. A failure of a model
    does not stop the others.

    Args:
        models: Models as ``CONFIG``, with the best checkpoint of its work directory, or as
            ``CONFIG=CHECKPOINT``.
        out: Folder for ``table.md``, ``table.csv``, ``table.json`` and ``report.html``; its
            sub-folder ``rows`` holds the results.
        tta: Whether to use test-time augmentation.
        **common: Options of ``prepare.load_config``; ``launcher`` is ``none`` or ``pytorch``.

    Returns:
        Rows of all models, on every process.

    Raises:
        UserError: The launcher is another, ``pytorch`` is used without torchrun, there are more
            processes than GPUs, or the folder is not writable.
    """
    launcher = common.pop('launcher', 'none')
    if launcher not in ('none', 'pytorch'):
        raise UserError(f'--launcher {launcher}: a table needs none or pytorch (torchrun)')
    check_torchrun(launcher)
    checks.make_writable(out)
    gpu, rank, processes = None, 0, 1
    if launcher == 'pytorch':
        dist.init_process_group(
            'gloo', timeout=timedelta(days=30)
        )  # processes wait for the longest row
        rank, processes, gpu = dist.get_rank(), dist.get_world_size(), _own_gpu()
    console = Console(stderr=True, quiet=rank > 0)
    arguments = list(dict.fromkeys(models))
    rows = {}
    for i in range(rank, len(arguments), processes):
        with console.status(f'{i + 1} of {len(arguments)}: {arguments[i]}'):
            rows[i] = make_row(arguments[i], Path(out), gpu=gpu, tta=tta, **common)
        line = f'{i + 1} of {len(arguments)}: {rows[i].name}: {_outcome(rows[i])}'
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if launcher == 'pytorch':
        gathered: list[Any] = [None] * processes
        dist.all_gather_object(gathered, rows)
        rows = {i: row for rows_of_process in gathered for i, row in rows_of_process.items()}
        dist.destroy_process_group()
    table = [rows[i] for i in sorted(rows)]
    if rank == 0:
        _name_apart(table)
        write_table(table, Path(out))
    return table


def _own_gpu() -> int | None:
    """Index of this process's GPU; None without GPUs."""
    if not torch.cuda.is_available():
        return None
    gpu, gpus = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
    if gpu >= gpus:
        raise UserError(f'process {gpu + 1} has no GPU: use at most {gpus} processes here')
    return gpu


def make_row(model: str, out: Path, *, gpu: int | None = None, **options: Any) -> Row:
    """Tests one model, or reads the result of an earlier test of it."""
    config, _, checkpoint = model.partition('=')
    name = f'{Path(config).resolve().parent.name}/{Path(config).stem}'
    row = Row(config, name, checkpoint=checkpoint or None)
    try:
        _fill(row, out, gpu, options)
    except Exception as error:  # any error: the other models are still tested
        row.problem, row.failed = (
            error.sentence if isinstance(error, UserError) else f'{type(error).__name__}: {error}',
            True,
        )
    return row


def _fill(row: Row, out: Path, gpu: int | None, options: dict[str, Any]) -> None:
    tta = options.pop('tta', False)
    cfg = prepare.load_config(row.config, **options)
    name, split = data_set_name(cfg)
    row.data_set = f'{name} {split}'.strip()
    score = paper_score(cfg)
    row.source = '' if score is None else str(score)
    row.paper = score.miou if score is not None and score.is_of(row.data_set) else None
    row.checkpoint = row.checkpoint or launch.best_checkpoint(cfg.work_dir)
    if row.checkpoint is None:
        row.problem = NOT_TRAINED
        return
    options['tta'] = tta
    cfg = prepare.prepare_test(row.config, row.checkpoint, **options)
    key = content_key(cfg, row.config, row.checkpoint)[:12]
    row.folder = out / ROWS / f'{row.name.replace("/", "_")}-{key}'
    row.result = ModelResult.load(row.folder)
    if row.result is None:
        row.problem = run_in_process(row.config, row.checkpoint, row.folder, gpu=gpu, **options)
        row.failed = bool(row.problem)
        row.result = ModelResult.load(row.folder)


def _outcome(row: Row) -> str:
    return row.problem if row.result is None else f'mIoU {row.result.scores["mIoU"]}'


def _name_apart(rows: Sequence[Row]) -> None:
    """Adds the checkpoint to the names of rows with the same name."""
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            row.name += f' ({row.checkpoint})'


def rich_table(rows: Sequence[Row]) -> Table:
    """Table for the terminal."""
    table, columns = Table(box=box.SIMPLE_HEAD), columns_of(rows)
    for i, heading in enumerate(headings_of(columns)):
        words = heading.replace(' ', '\n') if i > 1 else heading  # leaves room for names
        table.add_column(words, justify='left' if i < 2 else 'right', overflow='fold')
    for row in rows:
        table.add_row(
            *map(escape, cells(row, columns)),
            style='red' if row.failed else 'dim' if row.problem else None,
        )
    return table


def markdown(rows: Sequence[Row]) -> str:
    """Table with its notes as Markdown."""
    columns = columns_of(rows)
    head = [headings_of(columns), ['---', '---', *['---:'] * len(columns)]]
    lines = [*head, *(cells(row, columns) for row in rows)]
    table = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([*table, '', *(f'- {note}' for note in notes(rows)), ''])


def write_table(rows: Sequence[Row], out: Path) -> None:
    """Writes the table as Markdown, CSV, JSON and report."""
    sheet, columns = io.StringIO(), columns_of(rows)
    csv.writer(sheet).writerows([headings_of(columns), *(cells(row, columns) for row in rows)])
    records = [{**asdict(row), 'difference': row.difference} for row in rows]
    files = {
        'table.md': markdown(rows),
        'table.csv': sheet.getvalue(),
        'table.json': json.dumps(records, default=str, indent=1),
    }
    for name, text in files.items():
        write_atomically(text.encode(), out / name)
    missing = [name for name in ('jinja2', 'plotly') if find_spec(name) is None]
    if missing:
        print(f'report.html is not written without {missing[0]}: pip install jinja2 plotly')
        return
    from mmseg_ext.benchmark.report import write_report

    write_report(rows, out / 'report.html')
