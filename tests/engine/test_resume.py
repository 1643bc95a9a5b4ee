"""A run that was killed ends with the same checkpoint as one that was not, bit for bit."""

import shutil

import pytest
import torch
from mmengine.config import Config

from mmseg_ext.checkpoints.safe_load import load_file
from mmseg_ext.config import prepare
from mmseg_ext.config.overrides import set_training_length
from mmseg_ext.errors import UserError
from tests.engine.tiny_run import (
    KILLED,
    LOOPS,
    assert_equal,
    assert_same,
    config,
    last_checkpoint,
    logged,
    resumed,
    train,
    with_validation,
)


def test_the_same_run_twice_is_the_same_with_other_workers(folder, uninterrupted, tmp_path):
    cfg = config(folder / 'data', tmp_path)
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    assert train(cfg) == [(0, '')]
    assert_same(last_checkpoint(tmp_path), uninterrupted('epochs', 1))


def test_the_first_run_in_a_folder_is_the_second(folder, tmp_path):
    """The first one makes the statistics of its labels, the second one reads them."""
    weights = []
    for name in ('first', 'second'):
        cfg = config(folder / 'data', tmp_path / name, **{'train_cfg.max_epochs': 1})
        data = dict(type='ClassCentroidDataset', dataset=cfg.train_dataloader.dataset, tile=16)
        cfg.train_dataloader.dataset = dict(**data, cache_dir=str(tmp_path / 'cache'))
        cfg.train_dataloader.sampler = dict(type='ClassUniformSampler')
        assert train(cfg) == [(0, '')]
        weights.append(last_checkpoint(tmp_path / name))
    assert len(list((tmp_path / 'cache').iterdir())) == 1
    assert_same(*weights)


def test_another_seed_is_another_run(folder, uninterrupted, tmp_path):
    assert train(config(folder / 'data', tmp_path, randomness=dict(seed=1))) == [(0, '')]
    with pytest.raises(AssertionError):
        assert_same(last_checkpoint(tmp_path), uninterrupted('epochs', 1))


@pytest.mark.parametrize(
    ('loop', 'stop'), [('epochs', 4), ('epochs', 8), ('iterations', 8), ('finite', 8)]
)
def test_killed_in_an_iteration(folder, uninterrupted, tmp_path, loop, stop):
    cfg = config(folder / 'data', tmp_path, stop={stop: 'kill'}, **LOOPS[loop])
    assert train(cfg) == [(KILLED, '')]
    assert train(resumed(cfg, **{'train_dataloader.num_workers': 1})) == [(0, '')]
    assert_same(last_checkpoint(tmp_path), uninterrupted(loop, 1))


@pytest.mark.parametrize(
    'write', [9, 11]
)  # of four a checkpoint: the file, the folder, its name, the folder
def test_killed_while_a_checkpoint_is_written(folder, uninterrupted, tmp_path, write):
    cfg = config(folder / 'data', tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert train(cfg, write_to_die_in=write) == [(KILLED, '')]
    assert len(list(tmp_path.glob('*.unfinished'))) == 1
    assert last_checkpoint(tmp_path)['meta']['iter'] == 4
    assert train(resumed(cfg)) == [(0, '')]
    assert not list(tmp_path.glob('*.unfinished'))
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_15.pth']
    assert_same(last_checkpoint(tmp_path), uninterrupted('epochs', 1))


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_two_killed_processes(folder, uninterrupted, tmp_path, loop):
    cfg = config(folder / 'data', tmp_path, stop={6: 'kill'}, **LOOPS[loop])
    assert train(cfg, processes=2) == [(KILLED, '')] * 2
    assert train(resumed(cfg), processes=2) == [(0, '')] * 2
    assert_same(last_checkpoint(tmp_path), uninterrupted(loop, 2))


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_another_batch_size_is_refused(folder, tmp_path, loop):
    cfg = config(folder / 'data', tmp_path, stop={8: 'kill'}, **LOOPS[loop])
    assert train(cfg) == [(KILLED, '')]
    [(code, error)] = train(resumed(cfg, **{'train_dataloader.batch_size': 4}))
    assert code == 1
    assert error.startswith(f'UserError: {tmp_path}/iter_6.pth comes from a training with 2 images')
    assert 'this run has 4' in error


def test_half_a_batch_on_two_processes_goes_on_at_the_same_image(folder, tmp_path):
    cfg = config(folder / 'data', tmp_path, stop={8: 'kill'})
    assert train(cfg) == [(KILLED, '')]
    outcome = train(resumed(cfg, **{'train_dataloader.batch_size': 1}), processes=2)
    assert outcome == [(0, '')] * 2
    assert last_checkpoint(tmp_path)['meta']['iter'] == 15


def test_a_run_without_a_seed_goes_on_with_the_one_it_drew(folder, tmp_path):
    whole = config(folder / 'data', tmp_path / 'whole', randomness=dict(seed=None))
    assert train(whole) == [(0, '')]
    drawn = last_checkpoint(tmp_path / 'whole')['meta']['seed']
    cfg = config(folder / 'data', tmp_path / 'cut', randomness=dict(seed=drawn), stop={8: 'kill'})
    assert train(cfg) == [(KILLED, '')]
    assert train(resumed(cfg, randomness=dict(seed=None))) == [(0, '')]
    assert_same(last_checkpoint(tmp_path / 'cut'), last_checkpoint(tmp_path / 'whole'))


@pytest.mark.parametrize(('processes', 'stop'), [(1, 12), (2, 7)])  # in the third epoch
def test_checkpoints_by_epoch_bf16_and_channels_last(folder, tmp_path, processes, stop):
    changes = {
        'default_hooks.checkpoint': dict(type='AtomicCheckpointHook'),
        'optim_wrapper.type': 'Bf16OptimWrapper',
        'train_cfg.val_interval': 1,
        'channels_last': True,
    }
    whole = config(folder / 'data', tmp_path / 'whole', **changes)
    cut = config(folder / 'data', tmp_path / 'cut', stop={stop: 'kill'}, **changes)
    assert train(whole, processes=processes) == [(0, '')] * processes
    assert train(cut, processes=processes) == [(KILLED, '')] * processes
    assert {p.name for p in (tmp_path / 'cut').glob('*.pth')} == {'epoch_1.pth', 'epoch_2.pth'}
    assert train(resumed(cut), processes=processes) == [(0, '')] * processes
    assert_same(last_checkpoint(tmp_path / 'cut'), last_checkpoint(tmp_path / 'whole'))
    weight = last_checkpoint(tmp_path / 'cut')['state_dict']['backbone.layer1.0.conv1.weight']
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_a_validation_that_a_kill_cut_off_is_made_up_for(folder, tmp_path, loop):
    """The kill hits the write of the best checkpoint, after the first validation."""
    interval = 1 if loop == 'epochs' else 5
    changes = {**LOOPS[loop], 'default_hooks.checkpoint': dict(type='AtomicCheckpointHook')}
    whole = with_validation(config(folder / 'data', tmp_path / 'whole', **changes), interval)
    cut = with_validation(config(folder / 'data', tmp_path / 'cut', **changes), interval)
    assert train(whole) == [(0, '')] and train(cut, write_to_die_in=5) == [(KILLED, '')]
    assert not list((tmp_path / 'cut').glob('best*.pth'))
    assert train(resumed(cut)) == [(0, '')]
    a, b = (last_checkpoint(tmp_path / name) for name in ('cut', 'whole'))
    assert_same(a, b)
    scores = [c['message_hub']['log_scalars']['val/mIoU'].data[0].tolist() for c in (a, b)]
    assert scores[0] == scores[1] and len(scores[0]) >= 2
    best = [{p.name for p in (tmp_path / name).glob('best*')} for name in ('cut', 'whole')]
    assert best[0] == best[1] and len(best[0]) == 1


def test_checkpoints_load_with_weights_only(folder, tmp_path):
    changes = {'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.interval': 5}
    cfg = with_validation(config(folder / 'data', tmp_path, **changes), 1)
    assert train(cfg) == [(0, '')]
    path = (tmp_path / 'last_checkpoint').read_text()
    assert 'best_score' in load_file(path)['message_hub']['runtime_info']


SCHEDULES = {
    'one rate for all': {},
    'rates by layer': {'optim_wrapper.paramwise_cfg': dict(bias_lr_mult=2.0)},
}
WARM_UP = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=6, by_epoch=False),
    dict(type='PolyLR', power=0.9, begin=6, end=26, by_epoch=False),
]
POLY_BY_EPOCH = [dict(type='PolyLR', power=0.9, begin=0, end=5, convert_to_iter_based=True)]
STEPS_BY_EPOCH = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=6, by_epoch=False),
    dict(type='MultiStepLR', milestones=[2, 4], by_epoch=True),
]


@pytest.mark.parametrize('changes', SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    ('loop', 'schedule', 'short', 'long'),
    [
        ('epochs', POLY_BY_EPOCH, dict(max_epochs=2), dict(max_epochs=5)),
        ('epochs', STEPS_BY_EPOCH, dict(max_epochs=3), dict(max_epochs=5)),
        ('iterations', WARM_UP, dict(max_iters=2), dict(max_iters=26)),  # too short to warm up
        ('finite', WARM_UP, dict(max_iters=13), dict(max_iters=26)),
    ],
)
def test_a_finished_training_that_is_extended_has_the_schedule_of_the_longer_one(
    folder, tmp_path, loop, schedule, short, long, changes
):
    def run(name, length, **more):
        cfg = config(folder / 'data', tmp_path / name, **LOOPS[loop])
        cfg.train_cfg.update(long)
        cfg.merge_from_dict(dict(param_scheduler=schedule, **changes, **more))
        set_training_length(cfg, **length)
        cfg.default_hooks.logger.interval = 1
        assert train(cfg) == [(0, '')]
        rates = {line['step']: line['lr'] for line in logged(tmp_path / name) if 'lr' in line}
        return last_checkpoint(tmp_path / name), rates

    whole, expected = run('whole', long)
    first, _ = run('cut', short)
    extended, rates = run('cut', long, resume=True)
    done = first['meta']['iter']
    assert extended['meta']['iter'] == whole['meta']['iter'] > done
    assert {k: v for k, v in rates.items() if k > done} == {
        k: v for k, v in expected.items() if k > done
    }
    assert_equal(extended['param_schedulers'], whole['param_schedulers'])


def test_a_lower_learning_rate_holds_after_a_resume(folder, tmp_path):
    """As the message of a loss that is not finite advises."""
    cfg = config(folder / 'data', tmp_path, stop={8: 'kill'})
    assert train(cfg) == [(KILLED, '')]
    changes = {'optim_wrapper.optimizer.lr': 0.005, 'optim_wrapper.optimizer.weight_decay': 0.5}
    assert train(resumed(cfg, **changes)) == [(0, '')]
    whole = config(folder / 'data', tmp_path / 'whole')
    whole.merge_from_dict(changes)
    assert train(whole) == [(0, '')]
    rates = [
        [line['lr'] for line in logged(work_dir)][-1] for work_dir in (tmp_path, tmp_path / 'whole')
    ]
    assert rates[0] == pytest.approx(rates[1])
    (group,) = last_checkpoint(tmp_path)['optimizer']['param_groups']
    assert group['weight_decay'] == 0.5


@pytest.mark.parametrize(
    'changes',
    [
        {'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=0.01)},
        {'optim_wrapper.paramwise_cfg': dict(bias_lr_mult=2.0)},
    ],
    ids=['another kind', 'other groups'],
)
def test_another_optimizer_is_refused(folder, tmp_path, changes):
    cfg = config(folder / 'data', tmp_path, stop={8: 'kill'})
    assert train(cfg) == [(KILLED, '')]
    [(code, error)] = train(resumed(cfg, **changes))
    assert code == 1 and 'has an optimizer of' in error and 'start anew' in error


def test_a_copied_folder_resumes_its_files_and_spares_those_of_the_original(folder, tmp_path):
    cfg = with_validation(config(folder / 'data', tmp_path / 'a'), 1)
    cfg.merge_from_dict({'train_cfg.max_epochs': 1})
    assert train(cfg) == [(0, '')]
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    before = sorted(path.name for path in (tmp_path / 'a').glob('*.pth'))
    (tmp_path / 'b' / 'config.py').write_text(Config({**cfg.to_dict(), 'custom_hooks': []}).dump())
    copied = prepare.prepare_training(
        str(tmp_path / 'b' / 'config.py'), resume='auto', work_dir=str(tmp_path / 'b')
    )
    assert copied.load_from == str(tmp_path / 'b' / 'iter_5.pth')
    changes = {'train_cfg.max_epochs': 3, 'load_from': copied.load_from}
    assert train(resumed(cfg, work_dir=str(tmp_path / 'b'), **changes)) == [(0, '')]
    assert len(list((tmp_path / 'b').glob('best_*.pth'))) == 1
    assert sorted(path.name for path in (tmp_path / 'a').glob('*.pth')) == before
    (tmp_path / 'b' / 'last_checkpoint').write_text('/gone/epoch_9.pth')
    with pytest.raises(UserError, match=r'epoch_9\.pth, which .*last_checkpoint names, does not'):
        prepare.prepare_training(
            str(tmp_path / 'b' / 'config.py'), resume='auto', work_dir=str(tmp_path / 'b')
        )


def test_a_new_training_keeps_the_checkpoints_of_an_earlier_one(folder, tmp_path):
    cfg = config(folder / 'data', tmp_path, **{'train_cfg.max_epochs': 1})
    assert train(cfg) == [(0, '')]
    before = {path.name: path.read_bytes() for path in tmp_path.glob('iter_*.pth')}
    cfg.randomness = dict(seed=3)
    assert train(cfg) == train(cfg) == [(0, '')]
    earlier = {path.name: path.read_bytes() for path in (tmp_path / 'earlier_1').glob('*.pth')}
    assert earlier == before
    assert {path.name for path in (tmp_path / 'earlier_2').glob('*.pth')} == set(before)
    assert last_checkpoint(tmp_path)['meta']['seed'] == 3
