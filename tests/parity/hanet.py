"""HANet: one gate, codes of positions, whole networks and their losses."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.papers.hanet import HeightAttention, at_height, positions_of, sinusoid_table
from tests.parity.case import Case, Kind, Results, difference_in_norm, load, normalised

DILATED = {  # strides and dilations by output stride
    4: dict(strides=(1, 1, 1, 1), dilations=(1, 2, 4, 8)),
    8: dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    16: dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    32: dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
}
MOBILE = {
    8: dict(strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 1, 4, 1)),
    16: dict(strides=(1, 2, 2, 2, 1, 1, 1), dilations=(1, 1, 1, 1, 1, 2, 1)),
    32: dict(strides=(1, 2, 2, 2, 1, 2, 1), dilations=(1, 1, 1, 1, 1, 1, 1)),
}
BACKBONES = dict(
    resnet50=dict(type='ResNet', depth=50),
    resnet101=dict(type='ResNetV1c', depth=101, stem_channels=128),
    resnet152=dict(type='ResNet', depth=152),
    resnext50_32x4d=dict(type='ResNeXt', depth=50, groups=32, base_width=4),
    resnext101_32x8d=dict(type='ResNeXt', depth=101, groups=32, base_width=8),
    mobilenet_v2=dict(type='FullMobileNetV2', out_indices=(2, 6, 7)),
)


def gate_cfg(hyper: dict[str, Any]) -> dict[str, Any]:
    return dict(
        rows=128 // hyper['pos_rfactor'],
        reduction=hyper['r_factor'],
        num_convs=hyper['layer'],
        kernel_size=hyper['kernel_size'],
        injection=hyper['pos_injection'],
        learned=not hyper['is_encoding'],
        pooling=hyper['pooling'],
    )


def row_index(case: Case, rows: int) -> Tensor:
    """Positions of the ``rows`` rows, from the case's map of them."""
    maps = case.inputs['pos']
    metas = [dict(row_pos=one.amin(1)) for one in maps]
    size = maps.shape[1:]
    position = torch.stack([positions_of(meta, size, rows, maps.device) for meta in metas])
    return position * rows // 128


def run_gate(case: Case) -> Results:
    h, x = case.hyper, case.inputs['x']
    gate = HeightAttention(h['in_channel'], h['out_channel'], **gate_cfg(h))
    ours = 'decode_head.height_attention.0.'
    load(gate, case, paper='hanet', prefix='hanet0.', ours=ours)
    attention = at_height(
        gate(gate.summarise(x), positions(case, gate, gate.rows)), case.inputs['feat']
    )
    return dict(attention=attention[..., 0], feat=case.inputs['feat'] * attention), {}


def positions(case: Case, module: nn.Module, rows: int) -> Tensor:
    """As ``row_index``; where the case has none, nothing is added for them."""
    if 'pos' in case.inputs:
        return row_index(case, rows)
    for gate in module.modules():
        if isinstance(gate, HeightAttention) and gate.injection:
            gate.position.data.zero_()
    count = len(case.inputs['x' if 'x' in case.inputs else 'image'])
    return torch.zeros(count, rows, dtype=torch.long)


def run_position(case: Case) -> Results:
    h = case.hyper
    rows = 128 // h['pos_rfactor']
    gate = HeightAttention(h['dim'], 1, rows=rows, reduction=1).eval()
    results = {f'table_{p}_{d}': sinusoid_table(p, d) for p, d in h['tables']}
    return results | dict(added=gate.code(row_index(case, rows))[..., 0]), {}


def hanet(case: Case, loss: dict[str, Any]) -> nn.Module:
    h = case.hyper
    mobile = h['backbone'] == 'mobilenet_v2'
    stride = h['output_stride']
    levels = [32, 320, 1280] if mobile else [256, 1024, 2048]
    model = MODELS.build(
        dict(
            type='WindowedEncoderDecoder',
            backbone=dict(BACKBONES[h['backbone']], **(MOBILE if mobile else DILATED)[stride]),
            decode_head=dict(
                type='HANetHead',
                in_channels=levels,
                in_index=[0, 1, 2] if mobile else [0, 2, 3],
                num_classes=h['num_classes'],
                dilations=[d * 16 // stride for d in (6, 12, 18)],
                gates=[i for i, on in enumerate(h['gates']) if on],
                loss_decode=loss,
                attention=gate_cfg(h),
            ),
            auxiliary_head=dict(
                type='HANetAuxHead',
                in_channels=levels[1],
                in_index=1 if mobile else 2,
                num_classes=h['num_classes'],
                dropout_ratio=0,
                loss_decode=dict(loss),
            )
            if h.get('aux', True)
            else None,
            test_cfg=dict(mode='whole'),
        )
    )
    load(model, case, paper='hanet')
    return model


def run_whole(case: Case) -> Results:
    model = hanet(case, dict(type='CrossEntropyLoss'))
    image, head = normalised(case.inputs['image']), model.decode_head
    levels = model.extract_feat(image)
    logits, gates = head.run(levels, positions(case, model, head.rows))
    sizes = dict.fromkeys((0, 1, 2), levels[-1]) | dict.fromkeys((3, 4), levels[0])
    results = {f'attention{i}': at_height(gate, sizes[i])[..., 0] for i, gate in gates.items()}
    meta = dict(img_shape=image.shape[2:])
    results |= dict(
        logits_low=logits,
        logits=head.predict_by_feat(logits, [meta] * len(image)),
    )
    if model.with_auxiliary_head:
        results['aux'] = model.auxiliary_head(levels)
    return results, {}


def run_losses(case: Case) -> Results:
    """In float64: single ReLU decisions would differ from the recorded ones otherwise."""
    h, results, grads = case.hyper, {}, {}
    plain = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    weighted = dict(type='WeightedCELoss', class_weight=h.get('class_weights'))
    for form, loss in (('', plain), ('_weighted', weighted)):
        if not any(name.endswith(form) for name in case.outputs):
            continue
        model = hanet(case, loss).double()
        image = normalised(case.inputs['image'].double()).requires_grad_()
        levels = model.extract_feat(image)
        head = model.decode_head
        logits = head(levels, positions(case, model, head.rows))
        for name, label in case.inputs.items():
            if not name.startswith('label') or (form and name != 'label'):
                continue
            suffix = name.removeprefix('label') + form
            samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None].long())) for one in label]
            main = head.loss_by_feat(logits, samples)['loss_ce']
            aux = model.auxiliary_head.loss_by_feat(model.auxiliary_head(levels), samples)
            total = main + h['aux_weight'] * aux['loss_ce']
            found = dict(loss_main=main, loss_aux=aux['loss_ce'], loss_total=total)
            results |= {key + suffix: value for key, value in found.items()}
            if f'input{suffix}' in case.grads:
                (grads[f'input{suffix}'],) = torch.autograd.grad(total, image, retain_graph=True)
    for arrays in (case.outputs, case.grads):  # undefined as released: ours is 0
        arrays |= {k: np.zeros_like(a) for k, a in arrays.items() if np.isnan(a).all()}
    return results, grads


KINDS = {
    'height_attention': Kind(run_gate, 1e-4),
    'position': Kind(run_position, 1e-6),
    'whole': Kind(run_whole, 1e-4),
    'losses': Kind(run_losses, 1e-4, 0.02, difference_in_norm),
}
