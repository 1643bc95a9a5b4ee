"""Shrinks a config's model until it takes about a second on a CPU; its structure stays."""

import copy
import functools
import importlib
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.datasets.panoptic.transforms import boxes_of_masks

CONFIG_DIR = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(p for p in CONFIG_DIR.glob('*/*.py') if p.parent.name != '_base_')
assert CONFIGS, f'no config under {CONFIG_DIR}'
IGNORE_INDEX = 255
Feature = tuple[str, str, str | None]

# Smaller arguments by type. What a paper adds declares its own as SMALLER in its test file.
SMALLER: dict[str, dict[str, Any]] = {
    'DepthwiseSeparableASPPHead': dict(channels=16, c1_in_channels=32, c1_channels=8),
    'EfficientNetLite': dict(widen_factor=0.25, deepen_factor=0.5),
    'FCNHead': dict(channels=16),
    'FPNHead': dict(channels=16),
    'FPN': dict(out_channels=16),
    'PSPHead': dict(channels=16),
    'ASPPHead': dict(channels=16),
    # norms that start at 0 leave the convolutions before them without gradient
    'ResNetV1c': dict(base_channels=8, stem_channels=8, zero_init_residual=False),
    'ResNet': dict(base_channels=8, stem_channels=8, zero_init_residual=False),
    'ResNeXt': dict(base_channels=8, stem_channels=8, base_width=1, zero_init_residual=False),
    'MobileNetV2': dict(widen_factor=0.25),
}


@functools.cache
def smaller() -> dict[str, dict[str, Any]]:
    """Smaller arguments of all types, the papers' own among them."""
    files = sorted((Path(__file__).parent / 'papers').glob('test_*.py'))
    papers = (importlib.import_module(f'tests.papers.{path.stem}') for path in files)
    return dict(ChainMap(SMALLER, *(getattr(paper, 'SMALLER', {}) for paper in papers)))


def small_hrnet() -> dict:
    """``extra`` of an HRNet with four narrow branches; the stem's 64 channels are fixed."""
    stages = {}
    for i, widths in enumerate([(64,), (4, 8), (4, 8, 16), (4, 8, 16, 32)], start=1):
        stages[f'stage{i}'] = dict(
            num_modules=1,
            num_branches=i,
            block='BASIC' if i > 1 else 'BOTTLENECK',
            num_blocks=(1,) * i,
            num_channels=widths,
        )
    return stages


def dicts_in(node: Any) -> Iterator[dict]:
    """Every dict inside a config, outermost first."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list, tuple)):
            yield from dicts_in(child)


@functools.cache
def nodes(path: Path) -> list[dict]:
    """Every dict in the model of a config."""
    return list(dicts_in(Config.fromfile(path).model.to_dict()))


@functools.cache
def features(path: Path) -> frozenset[Feature]:
    """Types in a config's model, their options that are no numbers, and which head is in which."""
    options = {
        (str(node['type']), key, str(value))
        for node in nodes(path)
        if 'type' in node
        for key, value in node.items()
        if value is None or isinstance(value, str | bool)
    }
    heads = {
        (node['type'], node['decode_head']['type'], node['decode_head'].get('head', {}).get('type'))
        for node in nodes(path)
        if 'decode_head' in node
    }
    return frozenset(options | heads)


def depth(path: Path) -> int:
    """Depth of a config's backbone, where it has one; a small backbone is taken first."""
    return max(node.get('depth', 0) for node in nodes(path))


@functools.cache
def different_configs() -> list[Path]:
    """Configs that have all features together: each adds the most to those before it."""
    missing = set().union(*map(features, CONFIGS))
    chosen = []
    while missing:
        path = min(CONFIGS, key=lambda path: (-len(features(path) & missing), depth(path), path))
        missing -= features(path)
        chosen.append(path)
    return sorted(chosen)


def shrink(model: dict) -> dict:
    """A copy of a model's config with narrow layers and no weights to fetch."""
    model = copy.deepcopy(model)
    for node in dicts_in(model):
        node.pop('init_cfg', None)
        node.update(smaller().get(node.get('type', ''), {}))
        if node.get('type') == 'HRNetExact':
            node['extra'] = small_hrnet()
    if 'ignore_index' in model:  # of more classes than 8 bits hold
        model |= dict(num_classes=7, ignore_index=IGNORE_INDEX)
        model['data_preprocessor']['seg_pad_val'] = IGNORE_INDEX
    if model.get('test_cfg', {}).get('mode') == 'slide':  # recipes' windows are many times larger
        model['test_cfg'].update(crop_size=(64, 64), stride=(40, 40))
    if 'segmentor' in model:
        model['segmentor'] = shrink(model['segmentor'])
        return model
    backbone = revert_sync_batchnorm(MODELS.build(model['backbone']))
    backbone.eval()  # the host's backbones return nothing here
    levels = backbone(torch.zeros(1, 3, 64, 64))
    if 'neck' in model:
        given = model['neck']['in_channels']
        model['neck']['in_channels'] = type(given)(x.shape[1] for x in levels[-len(given) :])
        levels = revert_sync_batchnorm(MODELS.build(model['neck'])).eval()(levels)
    widths = [x.shape[1] for x in levels]
    for key in ('decode_head', 'auxiliary_head', 'sisr', 'levels', 'head_level'):
        for node in dicts_in(model.get(key) or {}):
            if 'in_channels' in node:
                index = node['in_index']
                node['in_channels'] = (
                    widths[index] if isinstance(index, int) else [widths[i] for i in index]
                )
    return model


def build(model: dict) -> nn.Module:
    """The model, initialised from a fixed seed, on one process."""
    torch.manual_seed(0)
    built = revert_sync_batchnorm(MODELS.build(ConfigDict(model)))
    built.init_weights()
    return built


def tiny(path: Path, **changes: Any) -> nn.Module:
    """A config's model, shrunk; ``changes`` are merged into ``model`` first."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    return build(shrink(cfg.model.to_dict()))


def make_batch(
    model: nn.Module, *, size: tuple[int, int] = (65, 97), count: int = 2, ignored: float = 0.0
) -> tuple[Tensor, list[SegDataSample]]:
    """Images (N, 3, H, W) and labels of blocks; the left part ``ignored`` of each is ignored."""
    generator = torch.Generator().manual_seed(1)
    h, w = size
    blocks = torch.randint(
        model.num_classes, (count, 1, h // 8 + 1, w // 8 + 1), generator=generator
    )
    label = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :h, :w].clone()
    label[..., : round(w * ignored)] = IGNORE_INDEX
    colour = torch.randn(model.num_classes + 1, 3, generator=generator)
    shown = colour[label[:, 0].clamp(max=model.num_classes)].permute(0, 3, 1, 2)
    images = shown + 0.1 * torch.randn(shown.shape, generator=generator)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=meta) for one in label]
    for sample in samples:
        sample.gt_instances = objects_of_classes(sample.gt_sem_seg.data[0])
    return images, samples


def objects_of_classes(label: Tensor, most: int = 4) -> InstanceData:
    """The pixels of each of the first classes of a label (H, W) as an object."""
    classes = [value for value in label.unique().tolist() if 0 <= value < IGNORE_INDEX][:most]
    masks = torch.stack([torch.zeros_like(label, dtype=torch.bool), *(label == c for c in classes)])
    return InstanceData(
        masks=masks[1:], labels=torch.tensor(classes), bboxes=boxes_of_masks(masks[1:])
    )


def total_loss(model: nn.Module, batch: tuple[Tensor, list[SegDataSample]]) -> Tensor:
    """The sum that the optimiser gets: every entry whose name contains "loss"."""
    losses = model.loss(*batch)
    return sum(value.mean() for name, value in losses.items() if 'loss' in name)
