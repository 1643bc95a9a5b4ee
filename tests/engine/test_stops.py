"""What ends a training early: each leaves a checkpoint from which it goes on, bit for bit."""

import shutil
from pathlib import Path

import pytest

from mmseg_ext.checkpoints.finite import first_not_finite
from mmseg_ext.checkpoints.safe_load import load_file
from tests.engine.tiny_run import (
    LOOPS,
    assert_same,
    config,
    last_checkpoint,
    resumed,
    train,
    with_validation,
)


def test_a_corrupt_image_is_named_and_nothing_is_lost(folder, uninterrupted, tmp_path):
    data = shutil.copytree(folder / 'data', tmp_path / 'data')
    broken = data / 'images/5.png'
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    cfg = config(folder / 'data', tmp_path / 'run', **{'train_dataloader.num_workers': 1})
    cfg.train_dataloader.dataset.data_root = str(data)
    cfg.default_hooks.checkpoint.interval = 100
    [(code, error)] = train(cfg)
    assert code == 1 and error.startswith(
        f'BadSampleError: {broken} with {data}/labels/5.png cannot'
    )
    assert '\n' not in error
    stopped = last_checkpoint(tmp_path / 'run')
    assert 0 < stopped['meta']['iter'] < 5 and stopped['meta']['epoch'] == 0
    assert [p.name for p in (tmp_path / 'run').glob('*.pth')] == ['interrupted.pth']

    broken.write_bytes(whole)
    assert train(resumed(cfg)) == [(0, '')]
    assert_same(last_checkpoint(tmp_path / 'run'), uninterrupted('epochs', 1))
    assert [p.name for p in (tmp_path / 'run').glob('*.pth')] == ['iter_15.pth']


def test_a_corrupt_image_of_one_process_stops_both(folder, uninterrupted, tmp_path):
    data = shutil.copytree(folder / 'data', tmp_path / 'data')
    broken = data / 'images/5.png'
    whole = broken.read_bytes()
    broken.write_bytes(b'')
    cfg = config(data, tmp_path / 'run')
    cfg.default_hooks.checkpoint.interval = 100
    outcome = train(cfg, processes=2)
    assert [code for code, _ in outcome] == [1, 1]
    errors = sorted(error for _, error in outcome)
    assert errors[0].startswith(f'BadSampleError: {broken}')
    assert errors[1] == 'UserError: another process has stopped: see its message'

    broken.write_bytes(whole)
    assert train(resumed(cfg), processes=2) == [(0, '')] * 2
    assert_same(last_checkpoint(tmp_path / 'run'), uninterrupted('epochs', 2))


@pytest.mark.parametrize(
    ('asked', 'error', 'done'),
    [
        ('interrupt', 'KeyboardInterrupt: ', 7),  # the iteration under way is finished
        ('interrupt twice', 'KeyboardInterrupt: ', 7),  # the second one while it is saved
        ('terminate', 'SystemExit: 143', 7),
        ('hook', 'RuntimeError: a hook failed', 7),  # the other hooks are called too
        ('hang_up', 'SystemExit: 129', 7),
        ('forward', 'RuntimeError: no memory', 6),  # it is undone
    ],
)
def test_a_stop_in_an_iteration(folder, uninterrupted, tmp_path, asked, error, done):
    cfg = config(folder / 'data', tmp_path, stop={7: asked})
    cfg.default_hooks.checkpoint.interval = 100
    assert [text for _, text in train(cfg)] == [error]
    assert last_checkpoint(tmp_path)['meta']['iter'] == done
    assert train(resumed(cfg)) == [(0, '')]
    assert_same(last_checkpoint(tmp_path), uninterrupted('epochs', 1))


def test_a_full_disk_leaves_the_last_checkpoint(folder, uninterrupted, tmp_path):
    cfg = config(folder / 'data', tmp_path, stop={4: 'full_disk'})
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    [(code, error)] = train(cfg)
    assert code == 1 and '\n' not in error
    assert error.startswith(f'UserError: {tmp_path}/iter_4.pth cannot be written (No space left')
    assert last_checkpoint(tmp_path)['meta']['iter'] == 2
    assert not list(tmp_path.glob('*.unfinished'))
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_2.pth']
    assert train(resumed(cfg)) == [(0, '')]
    assert_same(last_checkpoint(tmp_path), uninterrupted('epochs', 1))


def test_a_signal_to_the_data_workers_too_is_no_error(folder, tmp_path):
    cfg = config(folder / 'data', tmp_path, stop={7: 'terminate group'})
    cfg.default_hooks.checkpoint.interval = 100
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    assert [text for _, text in train(cfg)] == ['SystemExit: 143']
    assert last_checkpoint(tmp_path)['meta']['iter'] in (6, 7)


def test_a_signal_to_one_process_stops_both_at_the_same_iteration(folder, tmp_path):
    cfg = config(folder / 'data', tmp_path, stop={4: 'interrupt'}, stopped_rank=1)
    assert [text for _, text in train(cfg, processes=2)] == ['KeyboardInterrupt: '] * 2
    assert last_checkpoint(tmp_path)['meta']['iter'] == 4


def test_checkpoints_between_two_updates_are_refused(folder, tmp_path):
    cfg = config(folder / 'data', tmp_path, **{'optim_wrapper.accumulative_counts': 4})
    [(code, error)] = train(cfg)
    assert code == 1
    assert error.startswith('UserError: a checkpoint every 2 iterations falls between two updates')


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(
    ('asked', 'name'),
    [
        ('infinite statistics', 'backbone.layer1.0.bn1.running_var'),
        ('infinite gradient', 'decode_head.conv_seg.bias'),
    ],
)
@pytest.mark.parametrize('guard', ['DeferredRuntimeInfoHook', 'RuntimeInfoHook'])
def test_a_model_that_is_not_finite_is_neither_saved_nor_validated(
    folder, tmp_path, processes, asked, name, guard
):
    cfg = with_validation(config(folder / 'data', tmp_path), 1)
    cfg.merge_from_dict(dict(stop={4: asked}, stopped_rank=0))
    cfg.default_hooks.runtime_info.type = guard
    for code, error in train(cfg, processes=processes):
        assert code == 1
        if guard == 'DeferredRuntimeInfoHook':
            assert error.startswith(f'UserError: {name} is not finite at iteration 4, batch ')
            assert '.png' in error
        else:
            assert error.startswith(f'UserError: {name} is not finite, so that the model is')
    saved = {path.name: load_file(path)['state_dict'] for path in tmp_path.glob('*.pth')}
    assert 'iter_2.pth' in saved and 'iter_4.pth' not in saved
    assert not any(map(first_not_finite, saved.values()))


@pytest.mark.parametrize('processes', [1, 2])
def test_a_loss_that_is_not_finite_stops_within_an_interval(folder, tmp_path, processes):
    cfg = config(folder / 'data', tmp_path, stop={3: 'nan'}, stopped_rank=processes - 1)
    cfg.default_hooks.checkpoint.interval = 2  # would save a broken model at iteration 4
    for code, error in train(cfg, processes=processes):
        assert code == 1
        assert error.startswith('UserError: the loss is nan at iteration 3, batch ')
        assert '.png' in error
    assert last_checkpoint(tmp_path)['meta']['iter'] == 2
    assert {path.name for path in Path(tmp_path).glob('*.pth')} == {'iter_2.pth'}


@pytest.mark.parametrize(('loop', 'processes'), [('epochs', 2), ('iterations', 1)])
def test_the_end_waits_for_no_worker(folder, tmp_path, loop, processes):
    cfg = with_validation(config(folder / 'data', tmp_path, **LOOPS[loop]), interval=3)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=1, persistent_workers=True)
    assert train(cfg, processes=processes) == [(0, '')] * processes
