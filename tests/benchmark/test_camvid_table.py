"""The table of the CamVid trainings: what is tested, what is kept, and the means that it shows."""

import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.tiny import CONFIG_DIR, CONFIGS

BENCHMARKS = CONFIG_DIR.parent / 'benchmarks'
MACHINE = 'CPU of a test, 1 threads'


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module('camvid_table')


def finish(folder: Path, scores: list[float], *, done: bool = True) -> None:
    """Writes what a training leaves; its first run was stopped, and its second went on."""
    for run, seconds in (('first', (2.0, 4.0)), ('second', (3.0,))):
        (folder / run / 'vis_data').mkdir(parents=True)
        records = [json.dumps(dict(loss=1.0, time=time, step=50)) for time in seconds]
        records.append(json.dumps(dict(mIoU=1.0, time=100.0, step=50)))  # a validation
        (folder / run / 'vis_data' / 'scalars.json').write_text('\n'.join(records))
    points = [dict(iter=100 * i, mIoU=score) for i, score in enumerate(scores, 1)]
    (folder / 'curves.json').write_text(json.dumps([dict(iter=120, loss=1.0), *points]))
    (folder / 'best_mIoU_epoch_8.pth').touch()
    if done:
        (folder / 'finished').touch()


def run(table: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict]]:
    """Calls the tool; returns the models that it tested and their options."""
    tested = []

    def test_model(model: str, out: Path, **options: object) -> SimpleNamespace:
        tested.append((model, options))
        is_val = 'val' in options['cfg_options'].values()
        scores = dict(mIoU=50.0 if is_val else 60.0 + len(tested), boundary_f=40.0)
        return SimpleNamespace(scores=scores, device=MACHINE)

    monkeypatch.setattr(table, 'test_model', test_model)
    arguments = [str(folder / 'queue.txt'), '--out', str(folder), '--data-root', 'data']
    monkeypatch.setattr(
        sys, 'argv', ['camvid_table.py', *arguments, '--csv', str(folder / 'camvid.csv')]
    )
    table.main()
    return tested


def test_finished_trainings_are_tested_once(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / 'queue.txt').write_text(
        'configs/fcn/efflite0_camvid.py --seed 1\nconfigs/hmsa/efflite0_camvid.py --seed 2\n'
        'configs/fcn/efflite0_camvid.py --seed 0\n'
    )
    plain = [tmp_path / f'fcn_efflite0_camvid_seed_{seed}' for seed in (0, 1)]
    finish(plain[1], [30.0, 64.321, 61.0])
    finish(plain[0], [1.0], done=False)
    assert run(table, tmp_path, monkeypatch) == [
        (
            f'configs/fcn/efflite0_camvid.py={plain[1]}/best_mIoU_epoch_8.pth',
            dict(cfg_options={}, data_root='data'),
        )
    ]
    (plain[0] / 'finished').touch()
    hmsa = tmp_path / 'hmsa_efflite0_camvid_seed_2'
    finish(hmsa, [62.0])
    tested = run(table, tmp_path, monkeypatch)
    val = table.VAL
    assert [options['cfg_options'] for _, options in tested] == [
        {},
        {'model.test_scales': (1.0,)},
        {'model.test_scales': (1.0,), **val},
        {'model.test_scales': (0.5, 1.0, 2.0)},
        {'model.test_scales': (0.5, 1.0, 2.0), **val},
        {},
    ]
    assert {model.partition('=')[2] for model, _ in tested[:5]} == {f'{hmsa}/best_mIoU_epoch_8.pth'}
    content = (tmp_path / 'camvid.csv').read_text()
    # 300 iterations of (2 + 4 + 3) / 3 seconds
    assert content.splitlines() == [
        'config,seed,test,boundary_f,val,minutes,machine',
        f'fcn/efflite0_camvid,0,66.0,40.0,1.0,6.0,"{MACHINE}"',
        f'fcn/efflite0_camvid,1,61.0,40.0,64.32,15.0,"{MACHINE}"',
        f'hmsa/efflite0_camvid,2,61.0,40.0,62.0,6.0,"{MACHINE}"',
        f'hmsa/efflite0_camvid at 1,2,62.0,40.0,50.0,6.0,"{MACHINE}"',
        f'"hmsa/efflite0_camvid at 0.5, 1, 2",2,64.0,40.0,50.0,6.0,"{MACHINE}"',
    ]
    capsys.readouterr()
    assert run(table, tmp_path, monkeypatch) == []
    assert (tmp_path / 'camvid.csv').read_text() == content
    assert capsys.readouterr().out.splitlines()[2:4] == [
        '| fcn/efflite0_camvid | 63.50 | 5.00 | 2 | 32.66 | 40.00 | 10 |',
        '| hmsa/efflite0_camvid | 61.00 |  | 1 | 62.00 | 40.00 | 6 |',
    ]


def test_results_of_another_machine_stay(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'queue.txt').write_text('configs/fcn/efflite0_camvid.py --seed 0\n')
    finish(tmp_path / 'fcn_efflite0_camvid_seed_0', [60.0])
    other = table.Result('fcn/efflite0_camvid', 1, 65.0, 41.0, 66.0, 9.5, 'another CPU')
    removed = table.Result('old/config', 0, 65.0, 41.0, 66.0, 9.5, 'another CPU')
    table.write_results([other, removed], tmp_path / 'camvid.csv')
    assert len(run(table, tmp_path, monkeypatch)) == 1
    results = table.read_results(tmp_path / 'camvid.csv')
    assert [(result.config, result.seed) for result in results] == [
        ('old/config', 0),
        ('fcn/efflite0_camvid', 0),
        ('fcn/efflite0_camvid', 1),
    ]
    assert results[0] == removed and results[2] == other


def test_a_failed_test_is_no_result(table: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'fcn/none: .*none\.py'):
        table.test_model('configs/fcn/none.py=x.pth', tmp_path)


def test_the_queue_trains_every_config_of_the_table(table: ModuleType) -> None:
    queue = table.read_queue(BENCHMARKS / 'camvid_queue.txt')
    trainings = table.trainings_of(queue, Path('work_dirs/camvid'))
    seeds = Counter(training.name for training in trainings)
    for name, count in seeds.items():
        assert [t.seed for t in trainings if t.name == name] == list(range(count))
    three = {name for name, count in seeds.items() if count == 3}
    assert {name.partition('/')[0] for name in three} == {'dsrl', 'fcn', 'hmsa', 'pixel_contrast'}
    assert set(seeds.values()) == {2, 3}
    tested = {test[0] for training in trainings for test in table.tests_of(training)}
    files = {f'{path.parent.name}/{path.stem}' for path in CONFIGS}
    assert {re.sub(' at .*', '', name) for name in tested} == {
        name
        for name in files
        if re.search('(efflite0|espnetv2)_.*camvid', name + '_')
        and not re.search('_half', name)  # HMSA's page has them
    }
    folders = [training.folder for training in trainings]
    for i, words in enumerate(queue):
        for word in words:
            if '*' in word:
                needed = trainings[folders.index(Path(word).parent)]
                assert folders.index(needed.folder) < i and needed.seed == trainings[i].seed
