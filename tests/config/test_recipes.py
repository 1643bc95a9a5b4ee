"""The recipe of every config: its data in training and in tests."""

import ast
import copy
import functools
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint
from mmseg.registry import MODELS, TRANSFORMS
from torch import Tensor

from mmseg_ext.config import overrides, prepare
from mmseg_ext.config.checks import no_initial_weights, other_batch
from mmseg_ext.config.overrides import starting_weights
from mmseg_ext.config.walk import leaf_datasets, nested_dicts, what_is_read
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR, CONFIGS


@functools.cache
def _parsed(path: Path) -> Config:
    return Config.fromfile(path)


def read(path: Path) -> Config:
    """Config of a file that a test may change; each file is parsed once."""
    return copy.deepcopy(_parsed(path))


DATA_BASES = [
    path
    for path in sorted(CONFIG_DIR.glob('_base_/datasets/*.py'))
    if 'dataset' in (read(path).train_dataloader)
]
ALL = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
PAGES = [CONFIG_DIR.parent / 'README.md', *sorted(CONFIG_DIR.glob('*/README.md'))]
init_default_scope('mmseg')


def transforms_in(pipeline: Any) -> Iterator[dict]:
    for _, node in nested_dicts(pipeline):
        if isinstance(node.get('type'), str):
            yield node


def label_loaders(pipeline: Any) -> list[dict]:
    return [
        t for t in transforms_in(pipeline) if issubclass(TRANSFORMS.get(t['type']), LoadAnnotations)
    ]


@pytest.mark.parametrize('path', [*DATA_BASES, *CONFIGS], ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_labels_are_read_alike_in_training_and_in_every_test(path: Path) -> None:
    cfg = read(path)
    assert DATA_BASES
    pipelines = {
        f'{split} {leaf["type"]}': leaf['pipeline']
        for split in ('train', 'val', 'test')
        for leaf in leaf_datasets(cfg[f'{split}_dataloader'])
        if leaf['type'] != 'PseudoLabelDataset'
    }
    if cfg.get('tta_pipeline'):
        pipelines['tta'] = cfg.tta_pipeline
    loaders = {name: label_loaders(pipeline) for name, pipeline in pipelines.items()}
    expected = loaders[next(name for name in loaders if name.startswith('val'))]
    assert len(expected) == 1
    assert loaders == dict.fromkeys(loaders, expected)
    types = {name.partition(' ')[2] for name in loaders} - {''}
    assert len(types) == 1


def test_starting_weights_need_no_package_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {address for path in CONFIGS for address in starting_weights(read(path))}
    assert addresses
    files = {}
    for name in ('torchvision', 'mmpretrain', 'mmcls', 'timm'):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    for address in sorted(addresses):

        def note(url: str, *args: object, name: str = address, **kwargs: object) -> dict:
            files[name] = url
            return dict(state_dict={})

        monkeypatch.setattr(checkpoint, 'load_from_http', note)
        monkeypatch.setitem(checkpoint.CheckpointLoader._schemes, 'https://', note)
        checkpoint.CheckpointLoader.load_checkpoint(address)
    packages = {address for address in addresses if address.startswith('package://')}
    assert files.keys() == addresses - packages
    setup = (CONFIG_DIR.parent / 'setup.py').read_text()  # the extra "weights" installs these
    names = {address.removeprefix('package://').replace('_', '-') for address in packages}
    assert names and all(f"'{name}'" in setup for name in names)
    assert all(url.startswith('https://') for url in files.values())


def train_crops(cfg: Config) -> set:
    return {
        crop if isinstance(crop, tuple) else (crop, crop)
        for transform in transforms_in(cfg.train_dataloader)
        if (crop := transform.get('crop_size')) is not None
    }


def batch_of(cfg: Config, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Images and labels of a training batch, of pictures of the given sizes, resized least."""
    np.random.seed(0)
    random.seed(0)
    pipeline = [
        TRANSFORMS.build(
            dict(transform, ratio_range=transform['ratio_range'][:1] * 2)
            if 'ratio_range' in transform
            else transform
        )
        for transform in leaf_datasets(cfg.train_dataloader)[0]['pipeline']
        if not issubclass(TRANSFORMS.get(transform['type']), (LoadImageFromFile, LoadAnnotations))
    ]
    batch: dict[str, list] = dict(inputs=[], data_samples=[])
    for size in sizes:
        results: Any = dict(
            img=np.full((*size, 3), 128, np.uint8),
            gt_seg_map=np.zeros(size, np.uint8),
            seg_fields=['gt_seg_map'],
            img_shape=size,
            ori_shape=size,
        )
        for transform in pipeline:
            results = transform(results)
        batch['inputs'].append(results['inputs'])
        batch['data_samples'].append(results['data_samples'])
    batch = MODELS.build(cfg.model.data_preprocessor)(batch, training=True)
    labels = torch.stack([sample.gt_sem_seg.data for sample in batch['data_samples']])
    return batch['inputs'], labels


@ALL
def test_training_images_have_the_size_of_the_crop(path: Path) -> None:
    """Crops of small pictures are padded, so that a batch has no mixed sizes."""
    cfg = read(path)
    crops = train_crops(cfg)
    if len(crops) == 1:
        images, labels = batch_of(cfg, [(60, 90), (91, 33)])
        assert {images.shape[2:], labels.shape[2:]} == crops


SHRINKING = ('r50_coco_panoptic', 'pp_liteseg_cityscapes')  # images of a tenth of the crop


@ALL
def test_all_that_depends_on_a_crop_follows_its_size(path: Path) -> None:
    cfg = read(path)
    crops = train_crops(cfg)
    if len(crops) != 1:
        with pytest.raises(UserError, match='several sizes' if crops else 'no crop_size in'):
            overrides.set_crop_size(cfg, (64, 96))
        return
    overrides.set_crop_size(cfg, (64, 96))
    images, _ = batch_of(cfg, [(20, 30), (31, 13)])
    assert images.shape[2:] == (64, 96)
    images, labels = batch_of(cfg, [(300, 500), (400, 400)])
    assert images.shape[2:] == (64, 96)
    if path.stem not in SHRINKING:
        assert (labels == 255).float().mean() < 0.1
    left = [
        node for _, node in nested_dicts(what_is_read(cfg)) if not crops.isdisjoint(pairs(node))
    ]
    assert not left


def pairs(node: dict) -> set:
    return {
        tuple(v)
        for v in node.values()
        if isinstance(v, list | tuple) and len(v) == 2 and all(isinstance(x, int) for x in v)
    }


def test_the_grid_of_a_prior_and_padding_keep_their_proportion_to_the_crop() -> None:
    path = str(CONFIG_DIR / 'cpnet/r101_cityscapes.py')
    cfg = prepare.prepare_training(path, crop_size=(256, 256))
    assert cfg.model.decode_head.prior_size == (32, 32)
    assert cfg.model.test_cfg.crop_size == (256, 256)
    assert cfg.model.test_cfg.stride == (171, 171)
    options = {'model.decode_head.prior_size': (30, 31)}
    cfg = prepare.prepare_training(path, crop_size=(256, 256), cfg_options=options)
    assert cfg.model.decode_head.prior_size == (30, 31)
    cfg = read(CONFIG_DIR / 'spnet/r50_ade20k.py')
    (pad,) = (node for node in transforms_in(cfg.train_dataloader) if node['type'] == 'Pad')
    pad['size'] = (600, 480)
    overrides.set_crop_size(cfg, (240, 480))
    assert pad['size'] == (600, 240)


def num_processes(cfg: Config) -> int:
    """Number of processes of the recipe."""
    processes, left = divmod(cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size)
    assert not left
    return processes


@ALL
def test_a_recipe_says_its_batch_and_starts_that_many_processes(path: Path) -> None:
    cfg = prepare.prepare_training(str(path))
    assert cfg.auto_scale_lr.enable is False
    processes = num_processes(cfg)
    assert other_batch(cfg, processes) is None
    text = ast.get_docstring(ast.parse(path.read_text())).replace('\n', ' ')
    each = cfg.train_dataloader.batch_size
    batches = re.findall(r'[Bb]atch (\d+)(?: \((\d+) GPUs? x (\d+))?', text)
    for batch in batches:
        expected = (
            (processes * each, processes, each) if processes > 1 or batch[1] else (each, 0, 0)
        )
        assert tuple(int(number or 0) for number in batch) == expected
    name = f'configs/{path.parent.name}/{path.name}'
    commands = re.findall(rf'tools/(train\.py|dist_train\.sh) {name}(?: (\d+))?', text)
    for command in commands:
        one = ('train.py', '')
        assert command == (('dist_train.sh', str(processes)) if processes > 1 else one)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.parent.name)
def test_a_page_trains_with_the_processes_of_the_recipe(page: Path) -> None:
    for tool, path, count in re.findall(
        r'tools/(train\.py|dist_train\.sh) (configs/\w+/\w+\.py)(?: (\d+))?', page.read_text()
    ):
        processes = num_processes(read(CONFIG_DIR.parent / path))
        if page.parent.name != CONFIG_DIR.parent.name or processes > 1:  # the README shows both
            assert (tool, count) == (
                ('dist_train.sh', str(processes)) if processes > 1 else ('train.py', '')
            )


def test_another_batch_is_warned_of_unless_the_rate_is_scaled() -> None:
    path = str(CONFIG_DIR / 'cpnet/r50_ade20k.py')
    cfg = prepare.prepare_training(path)
    assert other_batch(cfg, 1) == (
        'a batch has 4 images (1 x 4), but the learning rate is for 16: --auto-scale-lr scales it'
    )
    cfg.optim_wrapper.accumulative_counts = 4
    assert other_batch(cfg, 1) is None
    assert '32 images (2 x 4 x 4 steps)' in other_batch(cfg, 2)
    scaled = prepare.prepare_training(path, auto_scale_lr=True)
    assert scaled.auto_scale_lr == dict(enable=True, base_batch_size=16)
    assert other_batch(scaled, 1) is None
    cfg.pop('auto_scale_lr')
    assert other_batch(cfg, 2) is None
    with pytest.raises(UserError, match='does not say for which batch'):
        overrides.scale_learning_rate(cfg)


@ALL
def test_a_recipe_has_its_starting_weights_or_describes_them(path: Path) -> None:
    """Only small networks on CamVid and on drawn pictures start from random weights."""
    cfg = prepare.prepare_training(str(path))
    drawn = path.stem.endswith('shapes') or 'streets' in path.stem
    from_scratch = path.stem.partition('_')[2].count('camvid') or drawn
    named = bool(starting_weights(cfg) or cfg.get('initial_weights'))
    needs_segmentor = cfg.model.type == 'MagNet'  # refused without it
    assert named or from_scratch or needs_segmentor
    warning = no_initial_weights(cfg)
    assert (warning is not None) == (not starting_weights(cfg) and 'initial_weights' in cfg)
    if warning:
        assert f'starts from {cfg.initial_weights}: give them by --init PATH' in warning


def test_no_weights_by_choice_and_given_weights_are_not_warned_of(tmp_path: Path) -> None:
    path = str(CONFIG_DIR / 'gscnn/wrn38_cityscapes.py')
    file = str(tmp_path / 'weights.pth')
    torch.save({'conv1.weight': torch.zeros(1)}, file)
    assert 'of mapillary/inplace_abn' in no_initial_weights(prepare.prepare_training(path))
    for init in ('none', file):
        assert no_initial_weights(prepare.prepare_training(path, init=init)) is None
    assert no_initial_weights(prepare.prepare_training(path, resume=file)) is None
