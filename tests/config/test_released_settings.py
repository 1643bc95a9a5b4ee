"""Settings of the recipes, as the released code or the paper has them."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from tests.tiny import CONFIG_DIR, CONFIGS, dicts_in, tiny

# Learning rate and weight decay by the start of a parameter's name; the longest start counts.
GROUPS: dict[str, dict[str, tuple[float, float]]] = {
    'hmsa/hrnet_ocr_cityscapes': {'': (5e-3, 1e-4)},
    'hmsa/hrnet_ocr_mapillary': {'': (5e-3, 1e-4)},
    'hmsa/hrnet_ocr_cityscapes_autolabel': {'': (1e-2, 1e-4)},
    'spnet/r50_ade20k': {
        '': (0.01, 1e-4),
        'decode_head': (0.1, 1e-4),
        'auxiliary_head': (0.1, 1e-4),
    },
    'spnet/r101_cityscapes': {
        '': (0.005, 1e-4),
        'decode_head': (0.05, 1e-4),
        'auxiliary_head': (0.05, 1e-4),
    },
    'danet/r101_cityscapes': {'': (0.003, 1e-4), 'decode_head': (0.03, 1e-4)},
    'fastfcn/r50_jpu_encnet_ade20k': {
        '': (0.1, 1e-4),
        'backbone': (0.01, 1e-4),
    },
    'pixel_contrast/hrnet_cityscapes': {'': (0.01, 5e-4)},
    'pixel_contrast/r101_deeplabv3_cityscapes_memory': {'': (0.01, 5e-4)},
    'hanet/r101_deeplabv3plus_cityscapes': {
        '': (0.01, 5e-4),
        'decode_head.height_attention': (0.01, 1e-4),
    },
    'hanet/mobilenetv2_deeplabv3plus_cityscapes': {
        '': (0.01, 5e-4),
        'decode_head.height_attention': (0.01, 1e-4),
    },
    'gscnn/wrn38_cityscapes': {'': (0.01, 1e-4)},
    'magnet/hrnet18s_ocr_cityscapes_plain': {'': (0.01, 5e-4)},
    'magnet/hrnet18s_ocr_cityscapes': {'': (1e-3, 5e-4)},
    'magnet/r50_fpn_deepglobe_plain': {'': (1e-3, 5e-4)},
    'dsrl/espnetv2_cityscapes': {
        '': (9e-3, 4e-5),
        'decode_head': (9e-2, 4e-5),
        'sssr': (9e-2, 4e-5),
    },
}


@pytest.mark.parametrize('name', GROUPS)
def test_parameters_have_the_released_learning_rate_and_decay(name: str) -> None:
    """Norms and biases too: no released recipe spares them the decay."""
    path = CONFIG_DIR / f'{name}.py'
    model = tiny(path)
    optimizer = build_optim_wrapper(model, Config.fromfile(path).optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    starts = set()
    for group in optimizer.param_groups:
        assert group['momentum'] == 0.9 and not group['nesterov']
        for parameter in group['params']:
            start = max((s for s in GROUPS[name] if names[id(parameter)].startswith(s)), key=len)
            values = group['lr'], group['weight_decay']
            assert values == pytest.approx(GROUPS[name][start]), names[id(parameter)]
            starts.add(start)
    assert starts == set(GROUPS[name])


def images_of(dataset: Any) -> set[tuple]:
    """Folder of images and choice in it, of each data set that a config of a data set names."""
    return {
        (
            cfg.get('data_root'),
            cfg['data_prefix']['img_path'],
            cfg.get('ann_file'),
            cfg.get('tiles'),
        )
        for cfg in dicts_in(dataset)
        if 'img_path' in cfg.get('data_prefix', {})
    }


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_no_checkpoint_is_the_best_on_images_that_it_was_trained_on(path: Path) -> None:
    cfg = Config.fromfile(path)
    trained = images_of(cfg.train_dataloader.dataset)
    assert trained
    if trained & images_of(cfg.val_dataloader.dataset):
        assert cfg.default_hooks.checkpoint.save_best is None


def test_dsrl_s_second_stage_asks_for_the_checkpoint_of_the_first() -> None:
    second = CONFIG_DIR / 'dsrl/espnetv2_cityscapes_1024x2048.py'
    assert 'configs/dsrl/espnetv2_cityscapes.py' in Config.fromfile(second).initial_weights


def test_dsrl_s_first_stage_trains_on_images_of_the_tested_size() -> None:
    cfg = Config.fromfile(CONFIG_DIR / 'dsrl/espnetv2_cityscapes.py')
    pipeline = cfg.train_dataloader.dataset.pipeline
    kinds = [transform.type for transform in pipeline]
    assert kinds.index('Resize') < kinds.index('RandomScaleCrop')
    resizes = [t for t in (*pipeline, *cfg.test_pipeline) if t.type == 'Resize']
    assert [tuple(resize.scale) for resize in resizes] == [(1024, 512)] * 2
