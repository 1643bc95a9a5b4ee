"""Our modules against recorded outputs of the papers' released code, one test per recorded case.

A case is a file ``parity/cases/<paper>-<case>.npz`` in ``$MMSEG_EXT_SHARED`` or in a folder
``shared`` beside the checkout. Its weights are drawn from their released names and go through the
paper's converter.
"""

import importlib.util
import json
import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.baselines.ocr_net_head import gather_class_centres
from mmseg_ext.convert import convert
from mmseg_ext.layers.feature_tap import FeatureTap

BESIDE = Path(__file__).parents[2] / 'shared'
SHARED = Path(os.environ.get('MMSEG_EXT_SHARED', BESIDE))
CASES = sorted((SHARED / 'parity' / 'cases').glob('*.npz'))
# Papers whose code does not lie in mmseg_ext/papers/<paper>.py.
MODULES = {
    'rmi_loss': 'mmseg_ext.losses.rmi_loss',
    'class_uniform_sampling': 'mmseg_ext.datasets.class_uniform',
    'auto_labelling': 'mmseg_ext.datasets.pseudo_label',
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Case(NamedTuple):
    """A recorded case: its description, and its arrays by kind and name."""

    meta: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]

    @property
    def hyper(self) -> dict[str, Any]:
        return self.meta['hyper']


Results = tuple[dict[str, Any], dict[str, Any]]  # outputs and gradients by the case's names


def read_case(path: Path) -> Case:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    groups: dict[str, dict] = {'in': {}, 'out': {}, 'grad': {}}
    meta = json.loads(str(arrays.pop('meta')))
    for name, array in arrays.items():
        group, _, rest = name.partition('_')
        groups[group][rest] = array
    inputs = {name: torch.from_numpy(array) for name, array in groups['in'].items()}
    return Case(meta, inputs, groups['out'], groups['grad'])


def seeded_state(case: Case, prefix: str = '') -> dict[str, Tensor]:
    """The case's weights under their released names, behind ``prefix``."""
    seeded = runpy.run_path(str(SHARED / 'parity' / 'seeding.py'))['seeded_tensor']
    state = {}
    for name, shape in case.meta['state']:
        tensor = torch.from_numpy(seeded(name, shape))
        for pattern, factor in case.meta.get('state_scale', ()):
            tensor = tensor * factor if re.search(pattern, name) else tensor
        state[prefix + name] = tensor
    return state


def load(module: nn.Module, case: Case, *, paper: str, prefix: str = '', ours: str = '') -> None:
    """Seeded weights through the converter, with ``ours`` cut off the names that it gives."""
    weights = convert(paper, seeded_state(case, prefix))
    assert all(name.startswith(ours) for name in weights)
    module.load_state_dict({name.removeprefix(ours): t for name, t in weights.items()})
    module.eval()


def difference(ours: Any, reference: np.ndarray) -> float:
    """Largest absolute difference over the reference's standard deviation.

    Over the larger of its magnitude and 0.01 where it is a single or a constant value.
    """
    ours = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, np.float64)
    reference = reference.astype(np.float64)
    assert ours.shape == reference.shape
    if not reference.size:
        return 0.0
    scale = reference.std()
    if reference.ndim == 0 or scale == 0:
        scale = max(np.abs(reference).max(), 1e-2)
    return float(np.abs(ours - reference).max() / scale)


def difference_to_maximum(ours: Any, reference: np.ndarray) -> float:
    """Largest absolute difference over the reference's largest magnitude, unless that is 0."""
    error = np.abs(np.asarray(ours.detach()) - reference).max()
    return float(error / (np.abs(reference).max() or 1))


def difference_in_norm(ours: Any, reference: np.ndarray) -> float:
    error = np.linalg.norm(np.asarray(ours.detach()) - reference)
    return float(error / (np.linalg.norm(reference) or 1))


# HMSA


def hrnet_cfg(
    channels: list[int], blocks: int, modules: list[int], stage1_blocks: int
) -> dict[str, Any]:
    stages = {
        f'stage{i}': dict(
            num_modules=modules[i - 2],
            num_branches=i,
            block='BASIC',
            num_blocks=(blocks,) * i,
            num_channels=channels[:i],
        )
        for i in (2, 3, 4)
    }
    stages['stage1'] = dict(
        num_modules=1,
        num_branches=1,
        block='BOTTLENECK',
        num_blocks=(stage1_blocks,),
        num_channels=(64,),
    )
    return dict(type='HRNetExact', extra=stages)


def ocr_cfg(in_channels: list[int], mid: int, key: int, num_classes: int) -> dict[str, Any]:
    return dict(
        type='OCRNetHead',
        in_channels=in_channels,
        in_index=list(range(len(in_channels))),
        channels=mid,
        ocr_channels=key,
        num_classes=num_classes,
    )


def hmsa_model(case: Case, **kwargs: Any) -> nn.Module:
    h = case.hyper
    head = ocr_cfg(h['hrnet_channels'], h['ocr_mid'], h['ocr_key'], h['num_classes'])
    head |= kwargs.pop('head', {})
    model = MODELS.build(
        dict(
            type='HMSA',
            backbone=hrnet_cfg(
                h['hrnet_channels'],
                h['blocks_per_branch'],
                h['modules_stage2_3_4'],
                h['stage1_blocks'],
            ),
            decode_head=dict(type='HMSAHead', head=head, attention_channels=h['attn_bottleneck']),
            test_cfg=dict(mode='whole'),
            **kwargs,
        )
    )
    load(model, case, paper='hmsa')
    return model


def normalised(image: Tensor) -> Tensor:
    return (image / 255 - MEAN[:, None, None]) / STD[:, None, None]


def run_attention_head(case: Case) -> Results:
    from mmseg_ext.papers.hmsa import ScaleAttention

    h = case.hyper
    head = ScaleAttention(
        h['in_channels'],
        h['bottleneck'],
        num_convs=1 + h['inner_3x3'],
        out_channels=h['out_channels'],
    )
    load(head, case, paper='hmsa', prefix='scale_attn.', ours='decode_head.scale_attn.')
    return dict(attn=head(case.inputs['x'])), {}


def run_ocr_block(case: Case) -> Results:
    h = case.hyper
    head = MODELS.build(
        ocr_cfg([h['in_channels']], h['mid_channels'], h['key_channels'], h['num_classes'])
    )
    load(head, case, paper='hmsa', prefix='ocr.', ours='decode_head.')
    head.training = True  # for the auxiliary logits; norms and dropout stay as they are
    (cls, aux), feats, _ = FeatureTap(head)(head, [case.inputs['x']])
    centres = gather_class_centres(head.bottleneck(case.inputs['x']), aux)
    return dict(cls=cls, aux=aux, ocr_feats=feats, context=centres), {}


def concatenated(levels: list[Tensor]) -> Tensor:
    size = levels[0].shape[2:]
    return torch.cat([F.interpolate(x, size, mode='bilinear') for x in levels], dim=1)


def run_hrnet(case: Case) -> Results:
    h = case.hyper
    trunk = MODELS.build(
        hrnet_cfg(
            h['channels'], h['blocks_per_branch'], h['modules_stage2_3_4'], h['stage1_blocks']
        )
    )
    load(trunk, case, paper='hmsa', prefix='backbone.', ours='backbone.')
    return dict(feats=concatenated(trunk(case.inputs['x']))), {}


def run_n_scale(case: Case) -> Results:
    image, results = normalised(case.inputs['img']), {}
    for i, scales in enumerate(case.hyper['scales']):
        model = hmsa_model(case, test_scales=scales)
        results[f'pred_list{i}' if i else 'pred'] = model(image)
        for scale in model.test_scales if i == 0 else ():
            own = model.run_scale(image, scale)
            for name, x in (('pred', own.logits), ('attn', own.attention)):
                full = F.interpolate(x, own.size, mode='bilinear')
                results[f'{name}_{float(scale)}x'] = full
    return results, {}


def run_single_scale(case: Case) -> Results:
    model, image = hmsa_model(case), normalised(case.inputs['img'])
    model.decode_head.head.training = True  # for the auxiliary logits alone
    feats, (cls, aux), _, attention = model.run_scale(image, model.test_scales[1])[1:]
    feats = concatenated(feats)
    return dict(
        feats_mean=feats.mean((2, 3)),
        feats_std=feats.std((2, 3)),
        cls=cls,
        aux=aux,
        attn=attention,
        attn_full=F.interpolate(attention, image.shape[2:], mode='bilinear'),
    ), {}


def run_hmsa_train(case: Case) -> Results:
    h = case.hyper
    weight, alpha = h['supervised_mscale_weight'], h['ocr_alpha']
    bce = dict(type='PixelSumBCELoss', loss_weight=1.0)
    aux = dict(type='RMILoss') if h['aux_rmi'] else bce
    model = hmsa_model(
        case,
        head=dict(
            dropout_ratio=0.0,
            loss_decode=dict(type='RMILoss', loss_name='loss_main'),
            loss_aux=dict(aux, loss_weight=alpha, loss_name='loss_aux'),
        ),
        train_scales=(h['lo_scale'], 1.0),
        loss_single=dict(bce, loss_weight=weight) if weight else None,
    )
    image = normalised(case.inputs['img'])
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label[None].long()))
        for label in case.inputs['labels']
    ]
    joint, head = [], model.decode_head.head
    by_feat = head.loss_by_feat
    head.loss_by_feat = lambda logits, data: (joint.append(logits), by_feat(logits, data))[1]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    losses = model.loss(image, samples)
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    released = convert('hmsa', {name: name for name, _ in case.meta['state']})
    ours = {theirs: name for name, theirs in released.items()}
    parameters = dict(model.named_parameters())
    grads = {name: parameters[ours[name]].grad for name in case.grads}

    low = f'{h["lo_scale"]:g}'
    results = dict(
        loss=total,
        loss_main=losses['decode.loss_main'],
        loss_aux=losses['decode.loss_aux'] / alpha,
        joint_cls=joint[0][0],
        joint_aux=joint[0][1],
    )
    if weight:
        results['loss_lo'] = losses[f'scale_{low}.loss_bce'] / weight
        results['loss_hi'] = losses['scale_1.loss_bce'] / weight

    model.train()
    trained = model.loss(image, samples)
    results['bntrain_loss'] = sum(value for name, value in trained.items() if 'loss' in name)
    buffers = dict(model.named_buffers())
    for name in case.outputs:
        key = name.removeprefix('bntrain_')
        if key in ours:
            results[name] = buffers[ours[key]]
    return results, grads


# RMI loss and class-uniform sampling


def run_rmi_loss(case: Case) -> Results:
    from mmseg_ext.losses import RMILoss, pixel_sum_bce, region_mutual_information

    h = case.hyper
    mix = h['lambda_way'] == 1
    region = dict(
        radius=h['radius'],
        pool={0: 'max', 1: 'avg', 2: 'interp'}[h['pool_way']],
        pool_stride=h['pool_stride'],
    )
    rmi_weight = 1 - h['weight_lambda'] if mix else h['weight_lambda']
    loss = RMILoss(**region, rmi_weight=rmi_weight, combine='mix' if mix else 'add')
    logits = case.inputs['logits'].requires_grad_()
    label = case.inputs['labels'].long()
    total = loss(logits, label, ignore_index=h['ignore_index'])
    total.backward()
    parts = dict(
        total=total,
        bce=pixel_sum_bce(logits, label, ignore_index=h['ignore_index']),
        rmi=region_mutual_information(logits, label, ignore_index=h['ignore_index'], **region),
    )
    return parts, dict(logits=logits.grad)


def run_centroids(case: Case) -> Results:
    from mmseg_ext.datasets.class_uniform import class_centroids, tile_origins

    h, label = case.hyper, case.inputs['labels'].numpy()
    rows = class_centroids(label, h['num_classes'], h['tile'])
    return dict(centroids=rows, tiles=tile_origins(*label.shape, h['tile'])), {}


def run_epoch_counts(case: Case) -> Results:
    from mmseg_ext.datasets.class_uniform import epoch_counts

    h = case.hyper
    counts = epoch_counts(h['num_images'], h['pct'], h['centroids_per_class'])
    return counts._asdict(), {}


class Kind(NamedTuple):
    """How a kind of case is computed, and what it may deviate."""

    run: Callable[[Case], Results]
    values: float
    grads: float = 0.0
    grad_difference: Callable[[Any, np.ndarray], float] = difference


KINDS = {
    ('hmsa', 'attention_head'): Kind(run_attention_head, 1e-5),
    ('hmsa', 'ocr_block'): Kind(run_ocr_block, 1e-5),
    ('hmsa', 'hrnet'): Kind(run_hrnet, 1e-5),
    ('hmsa', 'n_scale'): Kind(run_n_scale, 1e-5),
    ('hmsa', 'single_scale'): Kind(run_single_scale, 1e-4),
    ('hmsa', 'train'): Kind(run_hmsa_train, 1e-5, 1e-4),
    ('rmi_loss', 'loss'): Kind(run_rmi_loss, 1e-5, 1e-4, difference_to_maximum),
    ('class_uniform_sampling', 'centroids'): Kind(run_centroids, 0),
    ('class_uniform_sampling', 'epoch_counts'): Kind(run_epoch_counts, 0),
}


def tolerance(case: Case, kind: Kind, name: str) -> float:
    """What output ``name`` may deviate."""
    if 'tolerance' in case.meta:
        return case.meta['tolerance']
    return 1e-4 if name.startswith('bntrain_') else kind.values


def grad_rule(case: Case, kind: Kind) -> tuple[Callable[[Any, np.ndarray], float], float]:
    """How gradients are compared: those of the deep released HRNet-W48 by their norm.

    A few of its ReLU inputs lie within float32 rounding of zero.
    """
    if case.hyper.get('hrnet_channels') == [48, 96, 192, 384]:
        return difference_in_norm, 3e-3
    return kind.grad_difference, kind.grads


@pytest.mark.skipif(not (SHARED / 'parity').is_dir(), reason=f'no recorded outputs in {SHARED}')
def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize('path', CASES, ids=lambda path: path.stem)
def test_case_equals_the_released_code(path: Path) -> None:
    case = read_case(path)
    paper = case.meta['paper']
    if importlib.util.find_spec(MODULES.get(paper, f'mmseg_ext.papers.{paper}')) is None:
        pytest.skip(f'{paper} is not ours yet')
    kind = KINDS[paper, case.meta['kind']]
    outputs, grads = kind.run(case)
    for name, reference in case.outputs.items():
        assert difference(outputs[name], reference) <= tolerance(case, kind, name), name
    compare, limit = grad_rule(case, kind)
    for name, reference in case.grads.items():
        assert compare(grads[name], reference) <= limit, name
