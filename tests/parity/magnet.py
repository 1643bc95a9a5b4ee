"""MagNet: refiner, patches, points, both segmentors, a training step and the whole pipeline."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.convert import convert
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.magnet import MagNetRefiner
from mmseg_ext.papers.magnet.patches import (
    count_covering_patches,
    paste,
    patch_corners,
    resize,
    roi_align,
)
from mmseg_ext.papers.magnet.points import certainty, median_filter, nearest, select_points
from tests.parity.case import Case, Kind, Results, difference_to_maximum, load, seeded_state
from tests.parity.hmsa import hrnet_cfg, ocr_cfg


def hrnet_ocr_cfg(num_classes: int) -> dict[str, Any]:
    widths = [18, 36, 72, 144]
    backbone = hrnet_cfg(widths, 2, [1, 3, 2], 2)
    backbone |= dict(align_corners=True, stem_strides=(1, 1))
    head = ocr_cfg(widths, 512, 256, num_classes) | dict(type='MagNetOCRHead')
    return dict(
        type='WindowedEncoderDecoder',
        backbone=backbone,
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )


def fpn_cfg(num_classes: int) -> dict[str, Any]:
    return dict(
        type='WindowedEncoderDecoder',
        backbone=dict(type='ResNet', depth=50),
        neck=dict(
            type='FPN',
            in_channels=[256, 512, 1024, 2048],
            out_channels=256,
            num_outs=4,
            upsample_cfg=dict(mode='bilinear', align_corners=False),
        ),
        decode_head=dict(type='MagNetFPNHead', in_channels=[256] * 4, num_classes=num_classes),
        test_cfg=dict(mode='whole'),
    )


def logits_of(model: nn.Module, image: Tensor) -> Tensor:
    shape = tuple(image.shape[2:])
    return model.encode_decode(image, [dict(img_shape=shape, pad_shape=shape)] * len(image))


def run_refiner(case: Case) -> Results:
    refiner = loaded_refiner(case)
    return dict(y=refiner(case.inputs['first'], case.inputs['second'])), {}


def loaded_refiner(case: Case) -> nn.Module:
    refiner = MagNetRefiner(num_classes=case.hyper['n_classes'], input_norm=case.hyper['use_bn'])
    load(refiner, case, paper='magnet', prefix='refine0.', ours='refiners.0.')
    return refiner


def run_points(case: Case) -> Results:
    h, known, refined = case.hyper, case.inputs['Y'], case.inputs['R']
    low = tuple(h['low_size_hw'])
    score = nearest(certainty(refined) * (1 - certainty(known)), low)
    score = median_filter(score[0, 0], h['smooth_kernel'])
    points = select_points(score, h['n_points'], known.shape[2:])
    return dict(
        cert_Y=certainty(known),
        cert_R=certainty(refined),
        score_low=score[None, None],
        selected=points.flatten(),
        new_Y=torch.where(points, refined, known),
    ), {}


def swapped(size: list[int]) -> tuple[int, int]:
    return size[1], size[0]


def run_patches(case: Case) -> Results:
    results: dict[str, Any] = {}
    for i, (size, crop) in enumerate(case.hyper['coords']):
        places = patch_corners(swapped(size), swapped(crop), whole_steps=True)
        corners = [(x, y, x + crop[0], y + crop[1]) for y, x in places]
        results[f'coords_{i}'] = np.array(corners) / (size * 2)
    h = case.hyper['ensemble']
    size, crop = swapped(h['size_wh']), swapped(h['crop_wh'])
    places = patch_corners(size, crop, whole_steps=True)
    chosen = [places[i] for i in h['patch_ids']]
    ensemble = torch.zeros(1, h['n_classes'], *size)
    paste(ensemble, chosen, resize(case.inputs['p'], crop), overwrite=True)
    cover = count_covering_patches(chosen, crop, size, 10)
    ensemble /= cover.clamp(min=1)
    return dict(results, ens=ensemble, mask=cover > 0), {}


def run_roi_align(case: Case) -> Results:
    boxes, maps = case.hyper['boxes_xyxy'], case.inputs['x']
    out = tuple(case.hyper['out_hw'])
    uncertainty = roi_align(1 - certainty(maps), boxes, out).mean((1, 2, 3))
    return dict(
        crops=roi_align(maps, boxes, out),
        mean_unc=uncertainty,
        order_released=uncertainty.sort(stable=True).indices,
        order_paper=uncertainty.sort(stable=True, descending=True).indices,
    ), {}


def run_train_step(case: Case) -> Results:
    h, fine = case.hyper, case.inputs['fine']
    refiner = loaded_refiner(case).train()
    crop = roi_align(case.inputs['coarse'], h['boxes_xyxy'], tuple(fine.shape[2:]))
    logits = refiner(crop, fine)  # the released order of training
    logits.retain_grad()
    loss = WeightedCELoss(threshold=h['thres'], strict=True, min_kept=h['min_kept'])
    value = loss(logits, case.inputs['labels'].long(), ignore_index=h['ignore'])
    value.backward()
    grads = dict(
        logits=logits.grad,
        conv1=refiner.conv1.conv.weight.grad,
        seg_conv=refiner.conv_seg.weight.grad,
    )
    return dict(crop=crop, logits=logits, loss=value), grads


def run_hrnet_ocr(case: Case) -> Results:
    model, image = MODELS.build(hrnet_ocr_cfg(case.hyper['n_classes'])), case.inputs['img']
    load(model, case, paper='magnet')
    head = model.decode_head
    _, aux = head.result_and_regions(model.extract_feat(image))
    aux = F.interpolate(aux, image.shape[2:], mode='bilinear', align_corners=True)
    return dict(y=logits_of(model, image), aux=aux[..., ::2, ::2]), {}


def run_fpn(case: Case) -> Results:
    model = MODELS.build(fpn_cfg(case.hyper['n_classes']))
    load(model, case, paper='magnet')
    return dict(y=logits_of(model, case.inputs['img'])), {}


def run_pipeline(case: Case) -> Results:
    h = case.hyper
    scales = [swapped(scale) for scale in h['scales_wh']]
    make = dict(fpn=fpn_cfg, hrnet_ocr=hrnet_ocr_cfg)[h['segmentor']]
    patch = swapped(h['crop_wh'])
    model = MODELS.build(
        dict(
            type='MagNet',
            segmentor=make(h['n_classes']),
            patch_size=patch,
            scales=scales,
            input_size=swapped(h['input_wh']),
            num_refiners=1 if h['refinement'] == 'shared' else len(scales) - 1,
            as_released=True,
            test_cfg=dict(
                n_points=h['n_points'],
                n_patches=None if h['n_patches'] < 0 else h['n_patches'],
                smooth_kernel=h['smooth_kernel'],
            ),
        )
    ).eval()
    model.load_state_dict(convert('magnet', seeded_state(case)))
    ids = [
        (size, place) for size in scales for place in patch_corners(size, patch, whole_steps=True)
    ]

    def segment(patches: Tensor, places: list, size: tuple[int, int]) -> Tensor:
        """The given patches in the place of those cut out of the image."""
        given = case.inputs['patches'][[ids.index((size, place)) for place in places]]
        return logits_of(model.segmentor, given).softmax(1)

    model.segment = segment
    stages = list(model.stages(torch.zeros(1, 3, *scales[-1])))
    results = dict(coarse=stages[0].probs, final=stages[-1].probs)
    for i, stage in enumerate(stages[1:], 1):
        results[f'selected_{i}'] = stage.points.flatten()
    return results, {}


def absolute(ours: Any, reference: np.ndarray) -> float:
    ours = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, np.float64)
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max())


KINDS = {
    'refiner': Kind(run_refiner, 1e-5),
    'points': Kind(run_points, 1e-4, value_difference=absolute),
    'patches': Kind(run_patches, 1e-6, value_difference=absolute),
    'roi_align': Kind(run_roi_align, 3e-5),
    'train_step': Kind(run_train_step, 1e-4, 1e-4),
    'hrnet_ocr_whole': Kind(run_hrnet_ocr, 1e-4, value_difference=difference_to_maximum),
    'fpn_whole': Kind(run_fpn, 1e-4, value_difference=difference_to_maximum),
    'pipeline': Kind(run_pipeline, 1e-4, value_difference=absolute),
}
