import copyreg
import inspect
import os
import pathlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local
from mmengine.utils import digit_version
from mmseg.registry import MODELS, TRANSFORMS
from torch.utils.data import DataLoader

from mmseg_ext import errors
from mmseg_ext.checkpoints import fit, read
from mmseg_ext.checkpoints.safe_load import TRUST
from mmseg_ext.config import checks, overrides, prepare, walk
from mmseg_ext.config.walk import leaf_datasets, nested_dicts
from mmseg_ext.engine import launch
from tests.tiny_run import write_config, write_folder


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))


@pytest.fixture
def cfg(config):
    return Config.fromfile(config)


def build_model(cfg):
    init_default_scope('mmseg')
    return MODELS.build(cfg.model)


def save_model(cfg, path, rename=lambda name: name):
    state = build_model(cfg).state_dict()
    torch.save({'state_dict': {rename(k): v for k, v in state.items()}}, path)
    return str(path)


# What a command line changes


def test_the_data_root_reaches_every_data_set(cfg):
    leaf = cfg.val_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ClassCentroidDataset', dataset=dict(type='ConcatDataset', datasets=[leaf, leaf])
    )
    overrides.set_data_root(cfg, 'elsewhere')
    leaves = leaf_datasets(walk.what_is_read(cfg))
    assert len(leaves) == 4
    assert {leaf['data_root'] for leaf in leaves} == {'elsewhere'}


def test_statistics_are_kept_beside_the_work_directory(cfg):
    inner = cfg.train_dataloader.dataset.dataset
    cfg.train_dataloader.dataset = dict(type='ClassCentroidDataset', dataset=inner)
    overrides.set_cache_dir(cfg, 'work_dirs')
    assert cfg.train_dataloader.dataset.cache_dir == 'work_dirs'
    assert 'cache_dir' not in cfg.val_dataloader.dataset


def test_the_crop_size_reaches_pipelines_preprocessor_and_windows(cfg):
    overrides.set_crop_size(cfg, (16, 64))
    assert cfg.train_dataloader.dataset.dataset.pipeline[2].crop_size == (16, 64)
    assert cfg.model.data_preprocessor.size == (16, 64)
    assert cfg.crop_size == (16, 64)  # the config in the work directory shows it
    assert cfg.model.test_cfg.crop_size == (16, 64)
    assert cfg.model.test_cfg.stride == (8, 48)


def test_a_crop_size_without_a_crop_is_refused(cfg):
    cfg.train_dataloader.dataset.dataset.pipeline.pop(2)
    cfg.model.test_cfg = dict(mode='whole')
    with pytest.raises(ValueError, match='no crop_size in .*tiny.py'):
        overrides.set_crop_size(cfg, (16, 64))


def test_a_shorter_training_keeps_the_shape_of_its_schedule(cfg):
    overrides.set_training_length(cfg, max_iters=40)
    warm_up, poly = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == 40
    assert (warm_up['begin'], warm_up['end']) == (0, 4)
    assert (poly['begin'], poly['end']) == (4, 40)
    assert cfg.train_cfg.val_interval == 40
    assert cfg.default_hooks.checkpoint.interval == 40
    assert cfg.default_hooks.logger.interval == 40


def test_a_very_short_training_has_no_warm_up(cfg):
    overrides.set_training_length(cfg, max_iters=2)
    (poly,) = cfg.param_scheduler
    assert (poly['type'], poly['begin'], poly['end']) == ('PolyLR', 0, 2)


def test_schedulers_in_the_other_unit_are_left_alone(cfg):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=40, by_epoch=False),
        dict(type='MultiStepLR', begin=0, end=20, milestones=[10, 15]),
    ]
    overrides.set_training_length(cfg, max_epochs=8)
    warm_up, steps = cfg.param_scheduler
    assert warm_up['end'] == 40
    assert (steps['end'], steps['milestones']) == (8, [4, 6])
    assert cfg.default_hooks.logger.interval == 50  # iterations
    assert cfg.default_hooks.checkpoint.interval == 8


def test_extra_images_stop_at_the_same_part_of_the_training(cfg):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=175, val_interval=1)
    cfg.train_dataloader.sampler = dict(type='ClassUniformSampler', extra_epochs=150)
    overrides.set_training_length(cfg, max_epochs=7)
    assert cfg.train_dataloader.sampler.extra_epochs == 6


def test_a_length_in_the_other_unit_is_refused(cfg):
    with pytest.raises(ValueError, match='counts iters: give --max-iters instead of --max-epochs'):
        overrides.set_training_length(cfg, max_epochs=3)


@pytest.mark.parametrize(
    ('option', 'advice'),
    [
        ('crop_size', 'nothing reads crop_size; give --crop-size H W'),
        ('data_root', 'give --data-root DIR'),
        ('classes', r'train_dataloader\.dataset\.dataset\.metainfo\.classes'),
        ('optim_wraper.optimizer.lr', 'did you mean optim_wrapper'),
        ('train_pipeline', 'nothing reads train_pipeline'),
    ],
)
def test_an_option_that_nothing_reads_is_refused(config, option, advice):
    with pytest.raises(ValueError, match=advice):
        prepare.load_config(str(config), cfg_options={option: 1})


def test_options_that_are_read_are_merged(config):
    options = {'model.test_cfg.stride': (8, 8), 'train_dataloader.batch_size': 7, 'compile': False}
    cfg = prepare.load_config(str(config), cfg_options=options)
    assert tuple(cfg.model.test_cfg.stride) == (8, 8)
    assert cfg.train_dataloader.batch_size == 7


def test_the_runner_still_reads_what_options_may_set():
    from mmengine.runner import Runner

    source = inspect.getsource(Runner)
    keys = {'compile', 'sync_bn', 'activation_checkpointing', 'efficient_conv_bn_eval'}
    assert keys <= walk.READ_KEYS
    assert all(f"cfg.get('{key}'" in source for key in keys)


def test_a_seed_keeps_the_other_settings_of_randomness(config):
    config.write_text(config.read_text() + 'randomness = dict(deterministic=True)\n')
    cfg = prepare.prepare_training(str(config), seed=5)
    assert cfg.randomness == dict(deterministic=True, seed=5)


def test_the_work_directory_is_named_after_the_config(config):
    assert prepare.load_config(str(config)).work_dir == 'work_dirs/tiny'
    assert prepare.load_config(str(config), work_dir='x').work_dir == 'x'


def test_amp_sets_the_precision(config):
    assert prepare.prepare_training(str(config), amp='bf16').optim_wrapper.type == (
        'Bf16OptimWrapper'
    )


# Resume


def test_resume_without_a_checkpoint_starts_from_the_configs_weights(config, tmp_path, capsys):
    config.write_text(config.read_text() + "load_from = 'start.pth'\n")
    cfg = prepare.prepare_training(str(config), resume='auto', work_dir=str(tmp_path))
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')
    assert 'nothing to resume' in capsys.readouterr().out


def test_resume_takes_the_latest_checkpoint_not_the_starting_weights(config, tmp_path):
    config.write_text(config.read_text() + "load_from = 'start.pth'\n")
    (tmp_path / 'last_checkpoint').write_text('/before/it/was/moved/iter_3.pth')
    (tmp_path / 'iter_3.pth').touch()
    cfg = prepare.prepare_training(str(config), resume='auto', work_dir=str(tmp_path))
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'iter_3.pth'))


def test_the_configs_resume_holds_where_the_command_says_nothing(config, tmp_path):
    config.write_text(config.read_text() + "resume = True\nload_from = 'x.pth'\n")
    cfg = prepare.prepare_training(str(config))
    assert (cfg.resume, cfg.load_from) == (True, 'x.pth')


def test_resuming_from_a_missing_file_is_refused(config):
    with pytest.raises(ValueError, match='--resume gone.pth: no such file'):
        prepare.prepare_training(str(config), resume='gone.pth')


# Starting weights


def test_init_none_leaves_no_pretrained_weights(cfg):
    pretrained = dict(type='Pretrained', checkpoint='open-mmlab://resnet18_v1c')
    cfg.model.backbone.init_cfg = [dict(type='Kaiming', layer='Conv2d'), pretrained]
    cfg.model.decode_head.init_cfg = pretrained
    cfg.model.pretrained = 'somewhere.pth'
    cfg.load_from = 'start.pth'
    assert len(overrides.starting_weights(cfg)) == 3
    overrides.set_initial_weights(cfg, 'none')
    assert overrides.starting_weights(cfg) == []
    assert [i['type'] for i in cfg.model.backbone.init_cfg] == ['Kaiming']
    assert 'init_cfg' not in cfg.model.decode_head


def test_init_none_leaves_other_initialisers_alone(cfg):
    cfg.model.decode_head.init_cfg = dict(type='Constant', val=0.5, layer='Conv2d')
    before = cfg.model.to_dict()
    overrides.set_initial_weights(cfg, 'none')
    assert cfg.model.to_dict() == before
    model = build_model(cfg)
    model.init_weights()
    assert (model.decode_head.convs[0].conv.weight == 0.5).all()


def test_a_whole_models_file_is_loaded_as_such(cfg, tmp_path):
    path = save_model(cfg, tmp_path / 'x.pth', lambda name: f'module.{name}')
    overrides.set_initial_weights(cfg, path)
    assert overrides.starting_weights(cfg) == [cfg.load_from] == [path]


def test_a_head_alone_is_loaded_as_part_of_the_model(cfg, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'decode_head.conv_seg.bias': torch.zeros(3)}, path)
    overrides.set_initial_weights(cfg, str(path))
    assert cfg.load_from == str(path)


def test_a_backbones_file_goes_to_the_backbone(cfg, tmp_path):
    path = save_model(cfg, tmp_path / 'x.pth', lambda name: name.removeprefix('backbone.'))
    overrides.set_initial_weights(cfg, path)
    assert cfg.load_from is None
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=path)


@pytest.mark.parametrize('source', ['http://127.0.0.1:9/x.pth', 'open-mmlab://no_such_net'])
def test_weights_that_cannot_be_fetched_name_the_option(source):
    with pytest.raises(ValueError, match=r'cannot be fetched .*--init none.*--init PATH'):
        read.state_dict_of(source)


@pytest.mark.parametrize('content', [b'', b'hello\n', b'not a checkpoint', b'PK\x03\x04', b'I1\n.'])
def test_a_file_that_is_no_checkpoint_is_named(cfg, tmp_path, capsys, content):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'x\.pth is damaged or no checkpoint'):
        overrides.set_initial_weights(cfg, str(path))
    assert not capsys.readouterr().out


class Touches:
    """Writes a file when it is unpickled without a check."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('address', [False, True])
def test_no_code_of_a_checkpoint_is_run(tmp_path, capsys, monkeypatch, address):
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': {}, 'more': Touches(tmp_path / 'touched')}, path)
    source = path.as_uri().replace('file://', 'test://') if address else str(path)
    loaders = dict(CheckpointLoader._schemes)
    loaders['test://'] = lambda name, where: load_from_local(name.removeprefix('test://'), where)
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(sorted(loaders.items(), reverse=True)))
    with pytest.raises(ValueError, match=r'x\.pth holds objects that only code .*_LOAD=1$'):
        read.state_dict_of(source)
    assert address or not capsys.readouterr().out
    assert not (tmp_path / 'touched').exists()
    monkeypatch.setenv(TRUST, '1')
    read.state_dict_of(source)
    assert (tmp_path / 'touched').exists()


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.6'), reason='needs 2.6')
def test_a_checkpoint_that_the_host_alone_has_written_is_read_without_its_code(
    tmp_path, monkeypatch
):
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    with monkeypatch.context() as host:
        host.delitem(copyreg.dispatch_table, HistoryBuffer)
        torch.save({'state_dict': {}, 'message_hub': {'loss': buffer}}, tmp_path / 'host.pth')
        buffer._statistics_methods['min'] = pathlib.Path.unlink  # pickled as getattr(Path, ...)
        torch.save({'state_dict': {}, 'message_hub': {'loss': buffer}}, tmp_path / 'other.pth')
    loaded = read.read_checkpoint(str(tmp_path / 'host.pth'))
    assert loaded['message_hub']['loss'].mean(2) == 2
    with pytest.raises(ValueError, match=r'other\.pth holds objects that only code'):
        read.read_checkpoint(str(tmp_path / 'other.pth'))


def test_a_missing_starting_file_is_named(cfg):
    with pytest.raises(ValueError, match='--init gone.pth: no such file'):
        overrides.set_initial_weights(cfg, 'gone.pth')


class HasModel:
    def __init__(self, model):
        self.model = model


def test_a_checkpoint_of_another_model_is_refused_with_its_keys(cfg, tmp_path):
    path = save_model(cfg, tmp_path / 'x.pth', lambda name: name.replace('layer1', 'stage1'))
    runner = HasModel(build_model(cfg))
    for whole in (True, False):
        with pytest.raises(ValueError, match='another model') as error:
            fit.check_weights(runner, path, strict=whole)
        assert 'backbone.layer1.0.conv1.weight' in str(error.value)
        assert 'backbone.stage1.0' in str(error.value)


def test_a_training_starts_from_every_backbone_of_its_model(cfg, tmp_path):
    inner = build_model(cfg)
    assert fit.starting_parts(inner) == ('backbone.',)
    pair = torch.nn.ModuleDict(dict(teacher=inner, my_backbone=torch.nn.Conv2d(1, 1, 1)))
    assert fit.starting_parts(pair) == ('teacher.backbone.',)
    path = save_model(cfg, tmp_path / 'x.pth', lambda name: f'teacher.{name}')
    fit.check_weights(HasModel(pair), path, strict=False)  # without my_backbone
    with pytest.raises(ValueError, match='another model'):
        fit.check_weights(HasModel(pair), path, strict=True)


def test_another_number_of_classes_starts_a_training_but_is_no_test(cfg, tmp_path, capsys):
    path = save_model(cfg, tmp_path / 'x.pth')
    cfg.model.decode_head.num_classes = 5
    runner = HasModel(build_model(cfg))
    with pytest.raises(
        ValueError, match=r'x\.pth has 3 classes, but EncoderDecoder of the config has 5:'
    ):
        fit.check_weights(runner, path, strict=True)
    fit.check_weights(runner, path, strict=False)
    said = capsys.readouterr().out
    assert f'warning: {path}: 2 of another shape: decode_head.conv_seg.weight' in said


def test_a_backbones_file_must_be_that_backbones(cfg, tmp_path):
    path = save_model(cfg, tmp_path / 'x.pth', lambda name: name.removeprefix('backbone.'))
    overrides.set_initial_weights(cfg, path)
    cfg.model.backbone.depth = 34
    with pytest.raises(ValueError, match=r'another model than ResNetV1c.*layer1\.2\.conv1'):
        fit.check_weights(HasModel(build_model(cfg)), None, strict=False)


def test_loading_compares_as_the_host_loads(cfg, tmp_path):
    source, target = build_model(cfg), build_model(cfg)
    difference = fit.load_and_compare(target, source.state_dict())
    assert not str(difference)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


# Types and errors


def test_a_missing_argument_of_a_class_is_named(cfg):
    del cfg.model.decode_head['channels']
    missing = 'FCNHead needs channels: add it'
    with pytest.raises(ValueError, match=missing), checks.translate_config_errors():
        build_model(cfg)


@pytest.mark.parametrize(
    ('place', 'name', 'near'),
    [
        ('model.decode_head', 'FCNHaed', 'FCNHead'),
        ('train_dataloader.dataset.dataset.pipeline.2', 'RandomCorp', 'RandomCrop'),
        ('optim_wrapper.optimizer', 'SDG', 'SGD'),
        ('default_hooks.checkpoint', 'CheckpointHok', 'CheckpointHook'),
        ('val_evaluator', 'IoUMetrik', 'IoUMetric'),
    ],
)
def test_an_unknown_type_is_refused_with_the_nearest_name(config, place, name, near):
    with pytest.raises(ValueError, match='is not registered') as error:
        prepare.load_config(str(config), cfg_options={f'{place}.type': name})
    assert str(error.value).startswith(f'{place}.type={name!r}')
    assert near in str(error.value)


def test_every_type_of_a_config_is_known(config):
    cfg = prepare.load_config(str(config))
    types = [n['type'] for _, n in nested_dicts(walk.what_is_read(cfg)) if 'type' in n]
    assert len(types) > 20


def test_a_missing_config_is_named():
    with pytest.raises(ValueError, match='the config gone.py does not exist'):
        prepare.load_config('gone.py')


def caught(function, *args):
    try:
        function(*args)
    except errors.UserError as error:
        return error.sentence
    raise AssertionError('no error')


def test_a_mistake_of_the_user_is_one_sentence(cfg):
    sentence = caught(overrides.set_training_length, cfg)
    assert sentence == 'give max_iters or max_epochs'


class Unreadable(torch.utils.data.Dataset):
    def __init__(self, path):
        self.load = TRANSFORMS.build(dict(type='LoadSegMap'))
        self.path = str(path)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if not self.path:
            return np.zeros(1)[5]
        return self.load(dict(seg_map_path=self.path, seg_fields=[]))


def test_a_mistake_found_in_a_worker_is_one_sentence(tmp_path):
    path = tmp_path / 'x.png'
    path.write_bytes(b'no image')
    sentence = caught(next, iter(DataLoader(Unreadable(path), num_workers=1)))
    assert sentence.startswith(str(path))
    assert '\n' not in sentence
    with pytest.raises(IndexError):
        next(iter(DataLoader(Unreadable(''), num_workers=1)))


def test_only_mistakes_of_the_user_end_the_program_in_a_line():
    with pytest.raises(SystemExit, match='error: the config gone.py'), errors.errors_in_a_line():
        prepare.load_config('gone.py')
    with pytest.raises(ZeroDivisionError), errors.errors_in_a_line():
        print(1 / 0)


def test_ctrl_c_ends_the_program_in_a_line(capsys):
    for said in ('stopped', 'stopped: go on'):
        with pytest.raises(SystemExit) as end, errors.errors_in_a_line(stopped=said):
            raise KeyboardInterrupt
        assert (end.value.code, capsys.readouterr().err) == (130, f'{said}\n')


def test_papers_that_name_configs_alike_have_their_own_work_directories():
    name = 'hrnet18s_camvid.py'
    assert prepare.default_work_dir(f'configs/danet/{name}') == 'work_dirs/danet/hrnet18s_camvid'
    assert prepare.default_work_dir(f'mine/{name}') == 'work_dirs/hrnet18s_camvid'


def test_the_best_checkpoint_is_the_latest_best_one_else_the_last(tmp_path):
    assert launch.best_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('epoch_9.pth')
    assert launch.best_checkpoint(tmp_path) == 'epoch_9.pth'
    for i, name in enumerate(('best_mIoU_epoch_8.pth', 'best_mIoU_epoch_10.pth')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (i, i))
    assert launch.best_checkpoint(tmp_path) == str(tmp_path / 'best_mIoU_epoch_10.pth')


@pytest.mark.parametrize('flag', [False, True])
def test_a_config_may_ask_for_its_augmentation(tmp_path, flag):
    data = write_folder(tmp_path / 'data')
    path = write_config(tmp_path / 'tiny.py', data, extra='tta = True\n')
    weights = save_model(Config.fromfile(path), tmp_path / 'x.pth')
    cfg = prepare.prepare_test(str(path), weights, tta=flag)
    assert cfg.model.type == 'SegTTAModel' and cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline
    assert 'tta' not in cfg  # a test of the config that it leaves augments once too


def test_an_augmentation_that_is_no_switch_is_refused(tmp_path):
    path = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'), extra='tta = 3\n')
    with pytest.raises(errors.UserError, match='tta=3: give True or False'):
        prepare.prepare_training(str(path))


@pytest.mark.skipif(torch.cuda.is_available(), reason='for trainings on a CPU')
def test_a_training_on_a_cpu_keeps_freed_memory(tmp_path, monkeypatch):
    class KeptError(Exception):
        pass

    def keep():
        raise KeptError

    config = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))
    cfg = prepare.prepare_training(str(config), work_dir=str(tmp_path / 'run'))
    monkeypatch.setattr(launch, 'keep_freed_memory', keep)
    with pytest.raises(KeptError):
        launch.train(cfg)
