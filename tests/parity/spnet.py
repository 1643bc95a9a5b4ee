"""SPNet: strip and mixed pooling, head, whole network, losses, the choice of hard pixels."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.spnet import MixedPooling, StripPooling
from tests.parity.case import (
    Case,
    Kind,
    Results,
    difference_in_norm,
    difference_to_maximum,
    load,
    normalised,
)


def spnet(case: Case, **head: Any) -> nn.Module:
    h = case.hyper
    shared = dict(num_classes=h['num_classes'], align_corners=True)
    cross_entropy = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='SPNetResNet',
                depth=int(h['backbone'].removeprefix('resnet')),
                strip_pooling=h['spm_on'],
            ),
            decode_head=dict(
                type='SPNetHead', in_index=3, pool_sizes=h['pool_size'], **shared, **head
            ),
            auxiliary_head=dict(
                type='FCNHead',
                in_channels=1024,
                in_index=2,
                channels=256,
                num_convs=1,
                concat_input=False,
                norm_cfg=dict(type='BN'),
                loss_decode=cross_entropy,
                **shared,
                **head,
            ),
        )
    )
    load(model, case, paper='spnet')
    return model


def run_strip_pooling(case: Case) -> Results:
    gate, x = StripPooling(case.hyper['planes']), case.inputs['x']
    ours = 'backbone.layer4.0.spm.'
    load(gate, case, paper='spnet', prefix='pretrained.layer4.0.spm.', ours=ours)
    return dict(gate=gate.gate(gate.strips(x)), feat=gate(x)), {}


def run_mixed_pooling(case: Case) -> Results:
    h = case.hyper
    pooling = MixedPooling(
        h['in_channels'], pool_sizes=h['pool_size'], align_corners=h['align_corners']
    )
    ours = 'decode_head.mixed_pooling.0.'
    load(pooling, case, paper='spnet', prefix='head.strip_pool1.', ours=ours)
    return dict(feat=pooling(case.inputs['x'])), {}


def run_head(case: Case) -> Results:
    h = case.hyper
    head = MODELS.build(
        dict(
            type='SPNetHead',
            in_channels=h['in_channels'],
            num_classes=h['num_classes'],
            pool_sizes=h['pool_size'],
            align_corners=h['align_corners'],
        )
    )
    load(head, case, paper='spnet', prefix='head.', ours='decode_head.')
    return dict(logits=head([case.inputs['x']])), {}


def run_whole(case: Case) -> Results:
    model, image = spnet(case), normalised(case.inputs['image'])
    levels = model.extract_feat(image)
    low = model.decode_head(levels)
    results = {f'c{i}': level[:, ::16] for i, level in enumerate(levels, start=1)}
    results |= {f'c{i}_mean': level.mean((2, 3)) for i, level in enumerate(levels, start=1)}
    meta = dict(img_shape=image.shape[2:])
    return results | dict(
        logits_low=low,
        logits=model.encode_decode(image, [meta] * len(image)),
        aux=model.auxiliary_head(levels),
    ), {}


def run_losses(case: Case) -> Results:
    """In float64: single ReLU decisions would differ from the recorded ones otherwise."""
    h = case.hyper
    model = spnet(case, dropout_ratio=0.0, ignore_index=h['ignore_index']).double()
    image = normalised(case.inputs['image'].double()).requires_grad_()
    results, grads = {}, {}
    for name, label in case.inputs.items():
        if name == 'image':
            continue
        suffix = name.removeprefix('label')
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None].long())) for one in label]
        losses = model.loss(image, samples)
        main, aux = losses['decode.loss_ce'], losses['aux.loss_ce']
        results |= {
            f'loss_main{suffix}': main,
            f'loss_aux{suffix}': aux,
            f'loss_total{suffix}': main + h['aux_weight'] * aux,
        }
        if f'input{suffix}' in case.grads:
            total = results[f'loss_total{suffix}']
            grads[f'input{suffix}'] = torch.autograd.grad(total, image)[0]
    expect_zeros(case)
    return results, grads


def expect_zeros(case: Case) -> None:
    """Where the released code is undefined, which a NaN marks, ours is 0."""
    for arrays in (case.outputs, case.grads):
        arrays |= {k: np.zeros_like(a) for k, a in arrays.items() if np.isnan(a).all()}


def run_ohem(case: Case) -> Results:
    h = case.hyper
    results: dict[str, Tensor] = {}
    grads: dict[str, Tensor] = {}
    for name, label in case.inputs.items():
        if not name.startswith('label'):
            continue
        for min_kept in h['min_kept']:
            logits = case.inputs['logits'].clone().requires_grad_()
            loss = WeightedCELoss(
                class_weight=h['class_weights'], threshold=h['thresh'], min_kept=min_kept
            )
            key = f'keep{min_kept}{name.removeprefix("label")}'
            results[f'loss_{key}'] = loss(logits, label.long(), ignore_index=h['ignore_index'])
            grads[f'logits_{key}'] = torch.autograd.grad(results[f'loss_{key}'], logits)[0]
    expect_zeros(case)
    return results, grads


KINDS = {
    'strip_pooling': Kind(run_strip_pooling, 1e-4),
    'mixed_pooling': Kind(run_mixed_pooling, 1e-4),
    'head': Kind(run_head, 1e-4),
    'whole': Kind(run_whole, 1e-4),
    'losses': Kind(run_losses, 1e-4, 0.02, difference_in_norm),
    'ohem_loss': Kind(run_ohem, 1e-4, 1e-3, difference_to_maximum),
}
