"""FastFCN: both necks, the heads, the losses and whole networks."""

from typing import Any

import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_ext.convert import convert
from mmseg_ext.papers.fastfcn import class_presence
from tests.parity.case import Case, Kind, Results, difference_to_maximum, load, seeded_state

NECKS = dict(JPU='FastFCNJPU', JPU_X='JPUX')
RESNET = dict(type='ResNetV1c', stem_channels=128)  # without dilation


def enc_cfg(hyper: dict[str, Any]) -> dict[str, Any]:
    return dict(
        type='FastFCNEncHead',
        num_codes=hyper.get('num_codes', 32),
        se_weight=0.2 if hyper.get('se_loss') else 0,
    )


def run_neck(case: Case) -> Results:
    h = case.hyper
    neck = MODELS.build(
        dict(
            type=NECKS['JPU_X' if case.meta['kind'] == 'jpu_x' else 'JPU'],
            in_channels=h['in_channels'],
            mid_channels=h['width'],
            align_corners=h.get('align_corners', True),
        )
    )
    load(neck, case, paper='fastfcn', prefix='jpu.', ours='neck.')
    levels = neck([case.inputs[name] for name in ('c3', 'c4', 'c5')])
    return dict(y=levels[-1]), {}


def run_head(case: Case) -> Results:
    h = case.hyper
    head = MODELS.build(
        dict(
            type='PSPHead' if case.meta['kind'] == 'psp_head' else 'FastFCNASPPHead',
            in_channels=h['in_channels'],
            channels=h['channels'],
            num_classes=h['num_classes'],
            norm_cfg=dict(type='BN'),
            align_corners=h.get('align_corners', True),
        )
    )
    load(head, case, paper='fastfcn', prefix='head.', ours='decode_head.')
    return dict(logits=head([case.inputs['x']])), {}


def run_enc_module(case: Case) -> Results:
    h, x = case.hyper, case.inputs['x']
    channels = dict(in_channels=h['channels'], channels=h['channels'])
    head = MODELS.build(dict(enc_cfg(h), num_classes=h.get('num_classes', 2), **channels)).eval()
    weights = convert('fastfcn', seeded_state(case, 'head.encmodule.'))
    weights = {name.removeprefix('decode_head.'): tensor for name, tensor in weights.items()}
    missing, unexpected = head.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith(('bottleneck.', 'conv_seg.')) for name in missing)
    module = head.enc_module
    pixels, encoding = module.encoding_project(x), module.encoding[0]
    pooled, y = module(x)
    results = dict(
        y=y,
        en=pooled,
        assign=encoding.assign(pixels.flatten(2).mT),
        encoded=encoding(pixels),
    )
    if head.se_layer is not None:
        results['se'] = head.se_layer(pooled)
    return results, {}


def whole_model(case: Case) -> nn.Module:
    h = case.hyper
    width = 4 * h['width']
    depth = h['depth']
    levels = (128, 256, 512) if depth < 50 else (512, 1024, 2048)
    head = {
        'enc': enc_cfg(h),
        'psp': dict(type='PSPHead', channels=width // 4),
        'deeplab': dict(type='FastFCNASPPHead', channels=width // 8),
        'fcn': dict(type='FCNHead', channels=width // 4, num_convs=1, concat_input=False),
    }[h['head']]
    common = dict(
        num_classes=h['num_classes'],
        norm_cfg=dict(type='BN'),
        align_corners=h.get('align_corners', True),
    )
    auxiliary = dict(
        type='FCNHead',
        in_channels=levels[1],
        channels=levels[1] // 4,
        in_index=2,
        num_convs=1,
        concat_input=False,
    )
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(RESNET, depth=depth),
            neck=dict(type=NECKS[h['jpu']], in_channels=levels, mid_channels=h['width']),
            decode_head=dict(head, in_channels=width, in_index=3, **common),
            auxiliary_head=dict(auxiliary, **common) if h.get('aux', True) else None,
            test_cfg=dict(mode='whole'),
        )
    )
    load(model, case, paper='fastfcn')
    return model


def run_whole(case: Case) -> Results:
    model, x = whole_model(case), case.inputs['x']
    levels = model.extract_feat(x)
    head, results = model.decode_head, {}
    head.training = True  # for the classes' logits; norms and dropout stay as they are
    output = head(levels)
    if isinstance(output, tuple):
        output, results['se'] = output
    logits = dict(logits=output)
    if model.with_auxiliary_head:
        logits['aux'] = model.auxiliary_head(levels)
    for name, own in logits.items():
        results[name] = F.interpolate(own, x.shape[2:], mode='bilinear', align_corners=True)
    return results | dict(jpu_mean=levels[-1].mean((2, 3))), {}


def run_losses(case: Case) -> Results:
    h = case.hyper
    p1, se = (case.inputs[name].requires_grad_() for name in ('p1', 'se'))
    label = case.inputs['label'].long()
    label = label.masked_fill(label == h['ignore_index'], 255)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]
    common = dict(in_channels=4, channels=4, num_classes=h['num_classes'])
    head = MODELS.build(dict(type='FastFCNEncHead', se_weight=1.0, **common))
    main = head.loss_by_feat((p1, se), samples)
    loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    aux_head = MODELS.build(dict(type='FCNHead', loss_decode=loss, **common))
    aux = aux_head.loss_by_feat(case.inputs['p2'], samples)['loss_ce']
    total = main['loss_ce'] + h['aux_weight'] * aux + h['se_weight'] * main['loss_se']
    total.backward()
    return dict(
        total=total,
        ce=main['loss_ce'],
        aux=aux,
        se=main['loss_se'],
        presence=class_presence(label, h['num_classes']),
    ), dict(p1=p1.grad, se=se.grad)


KINDS = {
    'jpu': Kind(run_neck, 1e-5),
    'jpu_x': Kind(run_neck, 1e-5),
    'enc_module': Kind(run_enc_module, 1e-4),
    'aspp_head': Kind(run_head, 1e-4),
    'psp_head': Kind(run_head, 1e-4),
    'losses': Kind(run_losses, 1e-5, 1e-5, difference_to_maximum),
    'whole': Kind(run_whole, 1e-4),
}
