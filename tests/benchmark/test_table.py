import csv
import json
import os
import pickle
import re
import runpy
import shutil
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from mmseg.evaluation import IoUMetric
from PIL import Image

from mmseg_ext.benchmark import table as benchmark_table
from mmseg_ext.benchmark.rows import COLUMNS, OPTIONAL
from mmseg_ext.benchmark.table import make_table
from tests.benchmark.conftest import EMPTY, Made

ROOT = Path(__file__).parents[2]


def test_scores_of_one_image_with_an_empty_class_are_the_hosts(made: Made) -> None:
    model = init_model(str(made.cwd / 'second.py'), made.rows[2].checkpoint, device='cpu')
    pred = inference_model(model, str(made.cwd / 'data/images/val/0.png')).pred_sem_seg.data[0]
    label = torch.from_numpy(cv2.imread(str(made.cwd / 'data/labels/val/0.png'), 0))
    host = IoUMetric()
    host.dataset_meta = dict(classes=EMPTY)
    host.process({}, [dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=label))])
    wanted = host.evaluate(1)
    result = made.rows[2].result
    assert result is not None and result.images == 1
    assert {n: result.scores[n] for n in wanted} == pytest.approx(wanted)
    assert result.iou[3] is None and None not in result.iou[:3]
    assert np.sum(result.confusion) == (label != 255).sum()
    saved = np.asarray(Image.open(made.rows[2].folder / '000000.png'))
    assert np.array_equal(saved[..., 0], pred) and np.array_equal(saved[..., 1], label)


def test_a_row_that_fails_says_so_and_the_others_are_made(made: Made) -> None:
    assert [row.failed for row in made.rows] == [False, True, False, False, True]
    assert 'another model' in made.rows[1].problem and 'conv9' in made.rows[1].problem
    assert made.rows[4].problem == 'the checkpoint gone.pth does not exist'
    text = (made.out / 'table.md').read_text()
    assert re.search(r'third.* \| .* \| not trained \|', text)
    assert re.search(r'first \(other.pth\) \| .* \| failed \|', text)
    assert all(made.rows[i].problem in text for i in (1, 4))


def test_all_forms_of_the_table_say_the_same(made: Made) -> None:
    with open(made.out / 'table.csv', newline='') as file:
        sheet = list(csv.reader(file))
    lines = (made.out / 'table.md').read_text().splitlines()
    marked = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[:7]]
    headings = [heading for heading, _, _ in COLUMNS if heading not in OPTIONAL]
    assert sheet[0] == marked[0] == ['model', 'data set', *headings]
    assert sheet[1:] == marked[2:]
    records = json.loads((made.out / 'table.json').read_text())
    for record, row in zip(records, sheet[1:], strict=True):
        if record['result']:
            assert float(row[2]) == record['result']['scores']['mIoU']
            assert float(row[6]) == round(record['result']['costs']['parameters'] / 1e6, 2)


@pytest.fixture
def calls(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The configs that a table made of copies tests; each gets a result that was made before."""
    shutil.copytree(made.cwd, tmp_path / 'copy')
    monkeypatch.chdir(tmp_path / 'copy')
    for config in Path().glob('*.py'):
        config.write_text(config.read_text().replace(str(made.cwd), str(tmp_path / 'copy')))
    configs: list[str] = []
    source = made.rows[0].folder

    def run(config: str, checkpoint: str, folder: Path, **options: object) -> str:
        configs.append(config)
        shutil.copytree(made.cwd / source, folder, dirs_exist_ok=True)
        return ''

    monkeypatch.setattr(benchmark_table, 'run_in_process', run)
    make_table(['first.py', 'second.py'], 'out')
    assert configs == ['first.py', 'second.py']  # in another place: another config
    configs.clear()
    return configs


def test_a_row_is_made_again_only_if_something_changed(calls: list[str]) -> None:
    models = ['first.py', 'second.py']
    make_table(models, 'out')
    assert calls == []

    os.utime('first.py')
    Path('first.py').write_text(Path('first.py').read_text() + '\n# a remark\nunused = 1\n')
    os.utime('work_dirs/first/best_mIoU_iter_1.pth')
    make_table(models, 'out')
    assert calls == []

    weights = torch.load('work_dirs/first/best_mIoU_iter_1.pth')
    weights['state_dict']['decode_head.conv_seg.bias'][0] += 1
    torch.save(weights, 'work_dirs/first/best_mIoU_iter_1.pth')
    make_table(models, 'out')
    assert calls == ['first.py']

    with open('second.py', 'a') as config:
        config.write("\nmodel['test_cfg'] = dict(mode='whole')\n")
    make_table(models, 'out')
    assert calls == ['first.py', 'second.py']

    os.utime('data/labels/val/0.png')
    make_table(models, 'out')
    assert calls == ['first.py', 'second.py'] * 2

    make_table(models, 'out', tta=True)
    assert calls == ['first.py', 'second.py'] * 3


def test_an_interrupted_table_goes_on_where_it_stopped(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = benchmark_table.run_in_process

    def interrupted(config: str, *args: object, **options: object) -> str:
        if config == 'second.py':
            raise KeyboardInterrupt
        return run(config, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark_table, 'run_in_process', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_table(['first.py', 'second.py'], 'new')
    assert calls == ['first.py']
    monkeypatch.setattr(benchmark_table, 'run_in_process', run)
    rows = make_table(['first.py', 'second.py'], 'new')
    assert calls == ['first.py', 'second.py']
    assert all(row.result for row in rows)


def one_of_two(rank: int, port: int, cwd: Path, models: list[str]) -> None:
    """What torchrun starts."""
    os.chdir(cwd)
    numbers = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_PORT=port)
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ['MASTER_ADDR'] = '127.0.0.1'
    looked_at = []

    def run(config: str, checkpoint: str, folder: Path, **options: object) -> str:
        looked_at.append(config)
        shutil.copytree(Path('out', folder.relative_to('two')), folder)
        return '' if (folder / 'result.json').exists() else 'no result'

    benchmark_table.run_in_process = run
    rows = make_table(models, 'two', launcher='pytorch')
    Path(f'{rank}.pickle').write_bytes(pickle.dumps((looked_at, [row.result for row in rows])))


def test_two_processes_share_the_rows_and_make_the_same_table(made: Made) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    server = get_context('forkserver')
    args = [(rank, port, made.cwd, made.models) for rank in (0, 1)]
    workers = [server.Process(target=one_of_two, args=a) for a in args]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    saw = [pickle.loads((made.cwd / f'{rank}.pickle').read_bytes()) for rank in (0, 1)]
    assert [tested for tested, _ in saw] == [['first.py', 'second.py'], ['first.py']]
    assert saw[0][1] == saw[1][1] == [row.result for row in made.rows]
    assert (made.cwd / 'two/table.csv').read_text() == (made.out / 'table.csv').read_text()


@pytest.fixture
def tool(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[object, str]]:
    """Runs tools/test.py; its exit status or last words, and all that it printed."""

    def run(*args: str) -> tuple[object, str]:
        monkeypatch.chdir(made.cwd)
        monkeypatch.setattr(sys, 'argv', ['test.py', *args])
        status: object = 0
        try:
            runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_the_exit_status_tells_of_rows_that_failed(tool: Callable, made: Made) -> None:
    shutil.copytree(made.out, 'status')
    status, printed = tool('--table', 'first.py', 'third.py', '--out', 'status')
    assert status == 0 and 'not trained' in printed
    status, printed = tool('--table', 'first.py', 'third.py=gone.pth', '--out', 'status')
    assert str(status).endswith('/third: the checkpoint gone.pth does not exist')


def test_a_table_that_ctrl_c_stopped_says_that_it_goes_on(
    tool: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark_table, 'make_table', interrupted)
    status, printed = tool('--table', 'first.py')
    assert status == 130 and printed.endswith('stopped: the same command continues the table\n')


def test_what_the_tool_cannot_do_with_many_models_is_refused(tool: Callable) -> None:
    status, printed = tool('--table', 'first.py', '--show')
    assert status == 2 and '--task and --compile are for one model' in printed
    status, printed = tool('first.py')
    assert status == 2 and 'give a config and a checkpoint' in printed
    status, _ = tool('--table', 'first.py', '--launcher', 'slurm')
    assert 'a table needs none or pytorch' in str(status)
    status, _ = tool('--table', 'first.py', '--launcher', 'pytorch')
    assert str(status).startswith('error: --launcher pytorch is for processes that torchrun starts')


def test_the_table_shows_every_papers_number_and_compares_that_of_the_tested_data(
    made: Made, tmp_path: Path
) -> None:
    base = f"_base_ = '{made.cwd}/third.py'\n"
    text = base + "paper = dict(miou=50.25, split={!r}, source='Table 9')\n"
    splits = dict(tested='Data validation', other='Data test')
    for name, split in splits.items():
        (tmp_path / f'{name}.py').write_text(text.format(split))
    (tmp_path / 'child.py').write_text("_base_ = './tested.py'\n")
    (tmp_path / 'wrong.py').write_text(base + 'paper = dict(miou=50.25)\n')
    models = [str(tmp_path / f'{name}.py') for name in (*splits, 'child', 'wrong')]
    rows = make_table([*models, 'third.py'], tmp_path)
    assert [row.paper for row in rows] == [50.25, None, None, None, None]
    source = '50.25 mIoU on {} (Table 9)'
    assert [row.source for row in rows[:3]] == [*map(source.format, splits.values()), '']
    assert [row.failed for row in rows] == [False, False, False, True, False]
    assert rows[3].problem.endswith('wrong.py: give a dict of miou, split, source')
    table = (tmp_path / 'table.md').read_text()
    assert re.search(r'tested .*\| not trained \|.*\| 50.25 \|', table)
    assert 'other, paper: 50.25 mIoU on Data test (Table 9)' in table
