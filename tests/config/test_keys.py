"""Keys and values of a config that no run reads or can use."""

from unittest import mock

import pytest
from mmengine.logging import MMLogger
from mmseg.registry import MODELS

from mmseg_ext.config import prepare, values
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from tests.tiny_run import forget_visualizers, write_config, write_folder


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))


@pytest.mark.parametrize(
    ('option', 'near'),
    [
        ('model.test_cfg.mod', 'did you mean mode'),
        ('model.train_cfg.mode', 'remove it'),
        ('model.decode_head.num_clases', 'did you mean num_classes'),
        ('val_evaluator.iou_metric', 'did you mean iou_metrics'),
        ('env_cfg.mp_cfg.opencv_num_thread', 'did you mean opencv_num_threads'),
        ('randomness.sed', 'did you mean seed'),
        ('param_scheduler.1.endd', 'did you mean end'),
        ('train_cfg.max_iter', 'did you mean max_iters'),
        ('train_dataloader.num_worker', 'did you mean num_workers'),
        ('train_dataloader.dataset.dataset.pipeline.2.crop', 'crop_size'),
        ('optim_wrapper.optimizer.lrr', 'did you mean lr'),
        ('optim_wrapper.paramwise_cfg.custom_keys.head.lr_mul', 'did you mean lr_mult'),
        ('train_dataloader.dataset.dataset.data_prefix.img_pth', 'did you mean img_path'),
        ('optim_wrapper.paramwise_cfg.custom_key', 'did you mean custom_keys'),
        ('default_hooks.checkpoint.intervall', 'did you mean interval'),
        ('default_hooks.logger.interva', 'did you mean interval'),
        ('log_processor.by_epochs', 'did you mean by_epoch'),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_the_near_name(config, option, near):
    with pytest.raises(UserError, match=near) as error:
        prepare.load_config(str(config), cfg_options={option: 1})
    assert str(error.value).startswith(f'{option}: ')


def test_a_stage_that_a_backbone_does_not_have_is_refused():
    path = 'configs/hmsa/hrnet18s_ocr_camvid.py'
    with pytest.raises(UserError, match=r'model\.backbone\.extra\.stage5: HRNet does not read'):
        prepare.load_config(path, cfg_options={'model.backbone.extra.stage5': 1})


def test_a_key_of_a_wrapped_head_is_looked_for_inside(config):
    config.write_text(
        config.read_text().replace("type='EncoderDecoder'", "type='HMSA'")
        + "model['decode_head'] = dict(type='HMSAHead', head=model['decode_head'], num_clases=3)"
    )
    with pytest.raises(UserError, match=r'num_clases: HMSAHead .*did you mean num_classes'):
        prepare.load_config(str(config))


def test_keys_that_are_read_may_be_new(config):
    options = {
        'optim_wrapper.clip_grad.max_norm': 1.0,
        'optim_wrapper.paramwise_cfg.custom_keys.decode_head.lr_mult': 10,
        'val_dataloader.dataset.metainfo.palette': [[0, 0, 0]] * 3,
        'model.test_cfg.windows_per_batch': 2,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
    }
    cfg = prepare.load_config(str(config), cfg_options=options)
    assert cfg.optim_wrapper.clip_grad.max_norm == 1.0


def test_a_head_of_the_user_may_read_more(config, monkeypatch):
    head = type('ReadsMore', (MODELS.get('FCNHead'),), {'__module__': 'theirs'})
    monkeypatch.setitem(MODELS.module_dict, 'ReadsMore', head)
    config.write_text(config.read_text() + "model['decode_head']['type'] = 'ReadsMore'\n")
    cfg = prepare.load_config(str(config), cfg_options={'model.test_cfg.grid': 3})
    assert cfg.model.test_cfg.grid == 3


@pytest.mark.parametrize(
    ('option', 'value', 'sentence'),
    [
        ('train_dataloader.batch_size', 'four', 'give a number, such as 2'),
        ('train_dataloader.batch_size', 0, 'give a whole number of at least 1'),
        ('optim_wrapper.optimizer.lr', 'abc', 'give a number, such as 0.01'),
        ('optim_wrapper.optimizer.lr', float('nan'), 'give a number of at least 0'),
        ('train_cfg.max_iters', -3, 'give a whole number of at least 1'),
        ('resume', 'tru', 'resume=.tru.: give True or False'),
        ('model', 5, 'model is a dict, so change one of its keys, such as model.type'),
        ('model.backbone', None, r'model\.backbone=None: a model needs its dict'),
        ('train_dataloader.batch_size.x', 1, 'batch_size is 2 and has no x'),
        ('param_scheduler.7.end', 1, 'param_scheduler has the items 0 to 1'),
        ('runner_type', 'Nope', 'is not registered: set runner_type=ResumableRunner'),
        ('default_scope', 'mmdet', "set default_scope='mmseg'"),
        ('visualizer.vis_backends.0.type', 'WandbVisBackend', 'pip install no_such_package_wandb'),
        ('val_dataloader.dataset.metainfo.classes', ['a', 'b', 'a'], 'classes has a twice'),
        ('val_evaluator.iou_metrics', ['mIuo'], 'choose from mIoU, mDice, mFscore'),
        ('model.decode_head.act_cfg', lambda: 1, 'act_cfg is the function <lambda>: register it'),
        ('randomness.seed', 1.5, 'give a whole number of at least 0'),
        ('custom_hooks', dict(type='EMAHook'), 'custom_hooks is no list of dicts'),
        ('val_dataloader.dataset.metainfo.classes', 'wall', 'give a list of names'),
        ('train_dataloader.dataset.times', 0, 'give a whole number of at least 1'),
        ('model.decode_head.num_classes', 3.0, 'give a whole number of at least 1'),
        ('param_scheduler.1.by_epoch', True, r'param_scheduler\.1 \(PolyLR\) counts epochs'),
        ('val_dataloader.sampler.type', 'InfiniteSampler', 'never ends: set'),
        ('model.backbone.init_cfg.type', 'Pretrained', '--cfg-options.*cannot inherit'),
        ('default_hooks.checkpointt.interval', 3, 'default_hooks.checkpointt has no type'),
    ],
)
def test_a_value_that_no_run_can_use_is_refused(config, monkeypatch, option, value, sentence):
    monkeypatch.setitem(values.PACKAGES, 'WandbVisBackend', 'no_such_package_wandb')
    with pytest.raises(UserError, match=sentence):
        prepare.load_config(str(config), cfg_options={option: value})


def test_a_config_without_a_scope_has_ours_and_none_keeps_workers_that_it_has_not(config):
    config.write_text(config.read_text().replace("default_scope = 'mmseg'", ''))
    options = {
        'train_dataloader.persistent_workers': True,
        'train_dataloader.prefetch_factor': 4,
    }
    cfg = prepare.load_config(str(config), cfg_options=options)
    assert cfg.default_scope == 'mmseg'
    assert not cfg.train_dataloader.persistent_workers
    assert cfg.train_dataloader.prefetch_factor is None


@pytest.mark.parametrize(
    ('option', 'value', 'sentence'),
    [
        ('default_hooks.checkpoint.save_best', 'mIou', 'did you mean mIoU'),
        ('model.decode_head.num_convs', -1, 'FCNHead cannot be built .*num_convs >= 0'),
        ('model.backbone.depth', 19, 'ResNetV1c cannot be built .*invalid depth 19'),
        ('optim_wrapper.optimizer.momentum', -1, 'SGD cannot be built .*Invalid momentum'),
        ('param_scheduler.0.begin', 100, 'LinearLR cannot be built .*end should be larger'),
        ('model.decode_head.loss_decode.type', 'AffinityLoss', 'AffinityLoss cannot be called'),
        ('val_dataloader.dataset.metainfo.classes', ['cat', 'floor', 'wall'], 'in another order'),
        ('val_dataloader', None, 'belong together: set all three'),
        ('randomness.seed', 2**32, 'Seed must be between 0 and'),
        ('val_evaluator', [dict(type='IoUMetric')] * 2, 'metrics have different prefixes'),
        ('train_dataloader.shuffle', True, 'DataLoader cannot be built .*mutually exclusive'),
        ('optim_wrapper.accumulative_counts', 3, 'accumulative_counts=3: make it a multiple'),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(config, tmp_path, option, value, sentence):
    forget_visualizers()
    options = {option: value}
    cfg = prepare.prepare_training(str(config), cfg_options=options, work_dir=str(tmp_path / 'x'))
    with pytest.raises(UserError, match=sentence):
        launch.dry_run(cfg)


def test_a_config_that_is_its_own_base_is_refused(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = ['b.py']\n")
    (tmp_path / 'b.py').write_text("_base_ = 'a.py'\n")
    with pytest.raises(UserError, match=r'a\.py is its own base, through .*b\.py'):
        prepare.load_config(str(tmp_path / 'a.py'))


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('x = 1\ny = dict(a=undefined)\n', r'line 2 of .*NameError.*undefined.*correct'),
        ('x = 1\ny = (\n', 'cannot be read'),
        ("_base_ = 'gone.py'\n", 'cannot be read'),
        ('x = 1\n', 'has no model: add model='),
        ("model = dict(type='EncoderDecoder')\nmodel.append(1)\n", 'line 2'),
    ],
)
def test_an_error_in_a_config_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / 'a.py').write_text(text)
    with pytest.raises(UserError, match=sentence):
        prepare.load_config(str(tmp_path / 'a.py'))


def test_a_custom_key_of_no_parameter_is_told(config, tmp_path):
    forget_visualizers()
    options = {f'optim_wrapper.paramwise_cfg.custom_keys.{k}.lr_mult': 2 for k in ('head', 'hed')}
    cfg = prepare.prepare_training(str(config), cfg_options=options, work_dir=str(tmp_path / 'x'))
    with mock.patch.object(MMLogger, 'warning') as warning:
        launch.dry_run(cfg)
    told = [call.args[0] for call in warning.call_args_list if 'custom_keys' in str(call)]
    assert told == ['paramwise_cfg.custom_keys.hed: no name of a parameter contains hed']
