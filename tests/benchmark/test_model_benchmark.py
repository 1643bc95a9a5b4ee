"""Whole models against the host's nearest."""

import io
import json
import re
import sys

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from rich.console import Console

from mmseg_ext.benchmark.host_model import host_model
from mmseg_ext.benchmark.model_benchmark import (
    Setting,
    benchmark,
    make_step,
    results_table,
    write_results,
)
from mmseg_ext.benchmark.profile import profile_models, profile_tables
from mmseg_ext.config import overrides
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR, CONFIGS, build, dicts_in, make_batch, shrink, total_loss
from tests.tiny_run import write_config, write_folder


def counterpart(path):
    cfg = Config.fromfile(path)
    cfg.model = host_model(cfg.model.to_dict())
    overrides.set_initial_weights(cfg, 'none')
    return cfg.model.to_dict()


def test_every_config_has_a_counterpart_of_the_hosts_classes_or_is_told_to_name_one():
    told, seen = [], set()
    for path in CONFIGS:
        try:
            model = counterpart(path)
        except ValueError as error:
            assert 'name a config by --against' in str(error)
            told.append(re.search('no counterpart of (\\w+) in the host', str(error))[1])
            continue
        kind = tuple(node['type'] for node in dicts_in(model) if 'type' in node)
        if kind in seen:
            continue
        seen.add(kind)
        with torch.device('meta'):
            built = MODELS.build(ConfigDict(model))
        parts = [built, *built.children()]
        assert not [type(m) for m in parts if 'mmseg_ext' in type(m).__module__], path
    unlike = {'ASPPNeck', 'ConvNeXt', 'ESPNetV2', 'EfficientNetLite', 'OneFormerHead'}
    assert set(told) == unlike | {'PANetFPN', 'PPLiteSegHead', 'WiderResNetA2'}


class UndeclaredHead(FCNHead):
    """A head of a user, which declares nothing."""


@pytest.mark.parametrize('key', ['decode_head', 'auxiliary_head'])
def test_a_head_is_not_compared_with_itself(key, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'UndeclaredHead', UndeclaredHead)
    model = Config.fromfile(CONFIG_DIR / 'fcn/hrnet18s_camvid.py').model.to_dict()
    model['auxiliary_head'] = dict(model['decode_head'])
    host_head = host_model(model)[key]
    assert all(host_head[name] == value for name, value in model[key].items())  # the host's own
    model[key]['type'] = 'UndeclaredHead'
    sentence = 'no counterpart of UndeclaredHead in the host is known: name a config by --against'
    with pytest.raises(UserError, match=sentence):
        host_model(model)
    monkeypatch.setattr(UndeclaredHead, 'host_counterpart', dict(type='PSPHead'), raising=False)
    assert host_model(model)[key]['type'] == 'PSPHead'


@pytest.mark.parametrize(
    'name',
    ['hmsa/hrnet18s_ocr_streets', 'hanet/r50_deeplabv3plus_cityscapes', 'gscnn/r50_camvid'],
)
def test_the_counterpart_trains_and_predicts(name):
    model = build(shrink(counterpart(CONFIG_DIR / f'{name}.py')))
    batch = make_batch(model, size=(64, 96))
    assert total_loss(model.train(), batch).isfinite()
    assert model.eval().predict(*batch)[0].pred_sem_seg.shape == (64, 96)


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))


@pytest.mark.parametrize('mode', ['fp32', 'bf16+channels_last'])
def test_a_step_trains_or_predicts(config, mode):
    cfg = Config.fromfile(config).to_dict()
    cfg['model']['data_preprocessor'].update(size=None, size_divisor=1)
    cfg['model']['decode_head']['dropout_ratio'] = 0
    train = make_step(cfg, Setting('training', mode, 2, (32, 48), 'cpu'))
    first, second = (train()['loss'].item() for _ in range(2))
    assert 0 < first != second > 0  # of the same images, by other weights
    predict = make_step(cfg, Setting('inference', mode, 3, (32, 48), 'cpu'))
    assert [sample.pred_sem_seg.shape for sample in predict()] == [(32, 48)] * 3


def test_what_fails_says_so_in_its_place_and_the_rest_is_measured(config, tmp_path):
    broken = tmp_path / 'broken.py'
    broken.write_text("_base_ = './tiny.py'\nmodel = dict(decode_head=dict(in_channels=7))")
    results = list(benchmark([str(config)], against=[str(broken)], modes=['fp32'], repeats=1))
    assert all(r.error.startswith(f'{broken}: RuntimeError') for r in results)
    (result, other, folded) = benchmark([str(config)], modes=['fp32', 'folded'], repeats=1)
    assert result.multiply_adds[0] == result.multiply_adds[1]  # both are the host's own model
    assert result.multiply_adds[0] > 2 * other.multiply_adds[0] > 0  # with the backward pass
    assert result.eager_seconds is None and folded.eager_seconds > 0
    assert (folded.setting.phase, folded.setting.mode) == ('inference', 'folded')
    assert (result.setting.phase, other.setting.phase) == ('training', 'inference')
    assert result.setting.size == (32, 32) and result.against == 'host'
    assert all(seconds > 0 for seconds in result.seconds)
    if sys.platform == 'linux':
        assert all(peak > 2**20 for peak in result.peak_bytes)
    stream = io.StringIO()
    Console(file=stream, width=200).print(results_table([result, results[1]], 'cpu'))
    text = stream.getvalue()
    for part in (torch.__version__, 'training', '2 of 32x32', 'failed', 'broken.py: RuntimeError'):
        assert part in text
    write_results(tmp_path / 'out.json', [result, results[1]], 'cpu')
    written = json.loads((tmp_path / 'out.json').read_text())
    assert written['results'][0]['setting']['mode'] == 'fp32' and 'CPU' in written['machine']


def test_a_profile_names_the_operations_with_the_most_time(config):
    results = profile_models([str(config)], modes=['fp32', 'folded'], batch=2)
    kinds = [(setting.phase, setting.mode) for _, setting, _ in results]
    assert kinds == [('training', 'fp32'), ('inference', 'fp32'), ('inference', 'folded')]
    for path, setting, operations in results:
        assert path == str(config) and setting.size == (32, 32) and len(operations) == 10
        shares = [one.share for one in operations]
        assert shares == sorted(shares, reverse=True) and 0.2 < sum(shares) <= 1
    assert any('convolution' in one.name and one.calls for one in results[0][2])
    stream = io.StringIO()
    Console(file=stream, width=400).print(profile_tables(results, 'cpu'))
    assert f'{config}, inference, 2 of 32x32, folded' in stream.getvalue()


def test_mistakes_are_told_before_the_first_measurement(config, tmp_path):
    with pytest.raises(
        ValueError, match="'fp8' is none of fp32, bf16, channels_last, folded, compile"
    ):
        next(benchmark([str(config)], modes=['fp8+compile']))
    with pytest.raises(ValueError, match='PyTorch sees no device cuda:99 here: --device cpu'):
        next(benchmark([str(config)], device='cuda:99'))
    text = config.read_text().replace('crop_size = ', 'size = ').replace('=crop_size', '=size')
    nameless = tmp_path / 'nameless.py'
    nameless.write_text(text)
    with pytest.raises(ValueError, match='names no crop_size: give --size H W'):
        next(benchmark([str(nameless)]))


def test_the_results_name_configs_that_exist():
    text = (CONFIG_DIR.parent / 'benchmarks' / 'RESULTS.md').read_text()
    named = re.findall(r'(?:tools|configs)/[\w/.-]+\.py', text)
    assert named and all((CONFIG_DIR.parent / name).exists() for name in named)


@pytest.mark.parametrize('name', ['danet/hrnet18s_camvid', 'danet/r101_cityscapes'])
def test_danet_is_compared_with_a_head_as_wide(name):
    ours = Config.fromfile(CONFIG_DIR / f'{name}.py')
    overrides.set_initial_weights(ours, 'none')
    with torch.device('meta'):
        head = MODELS.build(ours.model).decode_head
        host = MODELS.build(ConfigDict(counterpart(CONFIG_DIR / f'{name}.py'))).decode_head
    own, other = (sum(p.numel() for p in h.parameters()) for h in (head, host))
    assert host.channels == head.channels and abs(own - other) < 0.01 * own
