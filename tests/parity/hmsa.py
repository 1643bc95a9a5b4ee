"""HMSA: attention, OCR, trunk, inference and training."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.baselines.ocr_net_head import gather_class_centres
from mmseg_ext.convert import convert
from mmseg_ext.layers.feature_tap import FeatureTap
from mmseg_ext.papers.hmsa import ScaleAttention
from tests.parity.case import Case, Kind, Results, load, normalised


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


def run_attention_head(case: Case) -> Results:
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


def train_norms(
    model: nn.Module, image: Tensor, samples: list[SegDataSample], names: dict[str, str]
) -> dict[str, Tensor]:
    """Loss and buffers, by released names, of a step in which the norms train.

    The smallest maps need more than one value for that.
    """
    losses = model.train().loss(image, samples)
    total = sum(value for name, value in losses.items() if 'loss' in name)
    buffers = dict(model.named_buffers())
    found = {f'bntrain_{name}': buffers[own] for name, own in names.items() if own in buffers}
    return dict(found, bntrain_loss=total)


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

    if any(name.startswith('bntrain_') for name in case.outputs):
        results |= train_norms(model, image, samples, ours)
    return results, grads


KINDS = {
    'attention_head': Kind(run_attention_head, 1e-5),
    'ocr_block': Kind(run_ocr_block, 1e-5),
    'hrnet': Kind(run_hrnet, 1e-5),
    'n_scale': Kind(run_n_scale, 1e-5),
    'single_scale': Kind(run_single_scale, 1e-4),
    'train': Kind(run_hmsa_train, 1e-5, 1e-4),
}
