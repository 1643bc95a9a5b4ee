"""PANet: neck, pooling of all levels, both heads, and all of them together."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.papers.panet import AdaptiveFeaturePooling, PANetBoxHead, PANetMaskHead
from tests.parity.case import Case, Kind, Results, load


def group_norm(case: Case) -> dict[str, Any]:
    return dict(type='GN', num_groups=case.hyper['norm_groups'], eps=case.hyper['norm_eps'])


def background_first(rows: Tensor) -> Tensor:
    """Our classes (M, K + 1, ...) in the released order."""
    return rows.roll(1, 1)


def neck_cfg(case: Case, width: int) -> dict[str, Any]:
    return dict(
        type='PANetFPN',
        in_channels=case.hyper['in_channels'],
        out_channels=width,
        num_outs=5,
        norm_cfg=group_norm(case),
    )


def named(levels: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f'N{i}': level for i, level in enumerate(levels, 2)}


def run_neck(case: Case) -> Results:
    neck = MODELS.build(neck_cfg(case, case.hyper['out_channels']))
    load(neck, case, paper='panet', ours='neck.')
    return named(neck([case.inputs[f'C{i}'] for i in range(2, 6)])), {}


def run_pooling(case: Case) -> Results:
    h = case.hyper
    assert h['aligned'] is False and h['min_roi_size_on_feature'] == 1
    pooling = AdaptiveFeaturePooling(h['strides'], sampling_ratio=h['sampling_ratio'])
    levels = [case.inputs[f'N{i}'] for i in range(2, 2 + len(h['strides']))]
    grids = list(pooling(levels, case.inputs['rois'], h['output']))
    return dict(pooled=np.stack([grid.numpy() for grid in grids])), {}


def box_head_cfg(case: Case, kind: str, roi: int) -> dict[str, Any]:
    h = case.hyper
    return dict(
        num_classes=h['num_classes_with_background'] - 1,
        kind=kind,
        channels=h['conv_dim'],
        fc_channels=h['fc_dim'],
        roi_size=roi,
        norm_cfg=group_norm(case),
    )


def grids_of(case: Case) -> list[Tensor]:
    return [case.inputs[f'level{i}'] for i in range(2, 6)]


def run_box_head(case: Case) -> Results:
    h = case.hyper
    head = PANetBoxHead(in_channels=h['in_channels'], **box_head_cfg(case, h['kind'], h['roi']))
    load(head, case, paper='panet', ours='decode_head.box_head.')
    output = head(grids_of(case))
    return dict(
        feat=output.features,
        cls=background_first(output.logits),
        box=background_first(output.deltas).flatten(1),
    ), {}


def mask_head_cfg(case: Case, width: int, roi: int) -> dict[str, Any]:
    h = case.hyper
    assert h['mask'] == 2 * roi
    return dict(
        num_classes=h['num_classes_with_background'] - 1,
        channels=width,
        roi_size=roi,
        norm_cfg=group_norm(case),
    )


def run_mask_head(case: Case) -> Results:
    h = case.hyper
    head = PANetMaskHead(in_channels=h['in_channels'], **mask_head_cfg(case, h['dim'], h['roi']))
    load(head, case, paper='panet', ours='decode_head.mask_head.')
    fc = head.features(grids_of(case)).fc
    assert fc is not None
    logits = background_first(head(grids_of(case)))
    return dict(fc=fc.flatten(1), mask_logits=logits), {}


class GivenLevels(nn.Module):
    """A backbone whose levels are its input."""

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return levels


def run_whole(case: Case) -> Results:
    h, model = case.hyper, nn.Module()
    body = h['backbone']
    model.backbone = GivenLevels()
    if body is not None:
        norm = dict(type='FrozenBN')
        cfg = dict(type='ResNet', depth=body['depth'], style='caffe', norm_cfg=norm)
        model.backbone = MODELS.build(cfg)
    model.neck = MODELS.build(neck_cfg(case, h['neck_channels']))
    model.decode_head = nn.Module()
    width = h['neck_channels']
    head = model.decode_head
    head.box_head = PANetBoxHead(
        in_channels=width, **box_head_cfg(case, h['box_kind'], h['box_roi'])
    )
    mask_cfg = mask_head_cfg(case, h['mask_dim'], h['mask_roi'])
    head.mask_head = PANetMaskHead(in_channels=width, **mask_cfg)
    load(model, case, paper='panet')
    given = [case.inputs.get(f'C{i}') for i in range(2, 6)]
    levels = model.neck(model.backbone(case.inputs['data'] if body else given))
    pooling = AdaptiveFeaturePooling(h['strides'], sampling_ratio=h['sampling_ratio'])
    rois = case.inputs['rois']
    boxes = head.box_head(pooling(levels, rois, h['box_roi']))
    masks = head.mask_head(pooling(levels, rois, h['mask_roi']))
    probs = background_first(masks.sigmoid())
    count, classes = case.outputs['mask_prob'].shape[:2]
    outputs = named(levels)
    outputs |= {f'{name}_first8': level[:, :8] for name, level in outputs.items()}
    return outputs | dict(
        cls_prob=background_first(boxes.logits.softmax(1)),
        box=background_first(boxes.deltas).flatten(1),
        mask_prob=probs[:count, :classes],
    ), {}


def absolute(ours: Any, reference: np.ndarray) -> float:
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max())


KINDS = {
    'neck': Kind(run_neck, 1e-4),
    'adaptive_pooling': Kind(run_pooling, 1e-4, value_difference=absolute),
    'box_head': Kind(run_box_head, 1e-4),
    'mask_head': Kind(run_mask_head, 1e-4),
    'whole': Kind(run_whole, 1e-3),
}
