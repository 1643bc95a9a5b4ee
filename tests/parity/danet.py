"""DANet: both attentions, head, losses, whole network, the multi-scale test."""

import runpy
from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.evaluation.encoding_tta import EncodingTTAModel
from mmseg_ext.papers.danet import ChannelAttention, PositionAttention, attention_weights
from tests.parity.case import (
    SHARED,
    Case,
    Kind,
    Results,
    difference_to_maximum,
    load,
    seeded_state,
)


def both_ways(module: nn.Module, case: Case) -> tuple[Tensor, Tensor]:
    """The module's output, and the gradient of its sum weighted as recorded."""
    x = case.inputs['x'].requires_grad_()
    y = module(x)
    seeded = runpy.run_path(str(SHARED / 'parity' / 'seeding.py'))['seeded_input']
    y.backward(torch.from_numpy(seeded(case.hyper['grad_output'], y.shape)))
    return y, x.grad


def run_pam(case: Case) -> Results:
    pam = PositionAttention(case.hyper['in_dim'], case.hyper['query_channels'])
    load(pam, case, paper='danet', prefix='head.sa.', ours='decode_head.pam.')
    x = case.inputs['x']
    with torch.no_grad():
        attention = attention_weights(
            pam.query_project(x).flatten(2), pam.key_project(x).flatten(2)
        )
    y, grad = both_ways(pam, case)
    return dict(y=y, attention=attention), dict(x=grad)


def run_cam(case: Case) -> Results:
    cam = ChannelAttention()
    load(cam, case, paper='danet', prefix='head.sc.', ours='decode_head.cam.')
    attention = cam.weights(case.inputs['x'])
    y, grad = both_ways(cam, case)
    return dict(y=y, attention=attention), dict(x=grad)


def danet_head(case: Case, **kwargs: Any) -> nn.Module:
    h = case.hyper
    head = MODELS.build(
        dict(
            type='DANetHead',
            in_channels=h['in_channels'],
            channels=h['inter_channels'],
            pam_channels=h['query_channels'],
            num_classes=h['num_classes'],
            **kwargs,
        )
    )
    load(head, case, paper='danet', prefix='head.', ours='decode_head.')
    return head


def three_logits(head: nn.Module, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What training gives, by the norms' running statistics and without dropout."""
    head.training = True
    return head(levels)


def run_head(case: Case) -> Results:
    head = danet_head(case)
    fused, pam, cam = three_logits(head, [case.inputs['x']])
    torch.testing.assert_close(head.eval()([case.inputs['x']]), fused, rtol=0, atol=0)
    return dict(fused=fused, pam=pam, cam=cam), {}


def run_head_loss(case: Case) -> Results:
    h = case.hyper
    head = danet_head(case, dropout_ratio=h['dropout'], align_corners=h['align_corners']).train()
    x, label = case.inputs['x'].requires_grad_(), case.inputs['label']
    label = label.masked_fill(label == h['ignore_index'], 255)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]
    logits = head([x])
    losses = head.loss_by_feat(logits, samples)
    names = dict(fused='pam_cam', pam='pam', cam='cam')
    parts = {f'loss_{k}': losses[f'{name}.loss_ce'] for k, name in names.items()}
    total = sum(w * part for w, part in zip(h['loss_weights'], parts.values(), strict=True))
    total.backward()
    gammas = dict(gamma_sa=head.pam.gamma.scale, gamma_sc=head.cam.gamma.scale)
    grads = dict(x=x.grad) | {name: gamma.grad.reshape(1) for name, gamma in gammas.items()}
    return dict(parts, total=total, fused=logits[0], pam=logits[1], cam=logits[2]), grads


def run_whole(case: Case) -> Results:
    h = case.hyper
    backbone: dict[str, Any] = dict(
        type='ResNet',
        depth=h['depth'],
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        multi_grid=h['multi_grid'],
    )
    if h['deep_stem']:
        backbone |= dict(type='ResNetV1c', stem_channels=128)
    head = dict(
        type='DANetHead',
        in_channels=2048,
        in_index=3,
        num_classes=h['num_classes'],
        align_corners=h['align_corners'],
    )
    model = MODELS.build(dict(type='EncoderDecoder', backbone=backbone, decode_head=head))
    load(model, case, paper='danet')
    x = case.inputs['x']
    metas = [dict(img_shape=x.shape[2:], pad_shape=x.shape[2:])] * len(x)
    full = model.encode_decode(x, metas)
    fused, pam, cam = three_logits(model.decode_head, model.extract_feat(x))
    return dict(fused=full, low_fused=fused, low_pam=pam, low_cam=cam), {}


class StandIn(nn.Module):
    """The recorded test's network: one convolution, resized to its input."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        h = case.hyper
        self.conv = nn.Conv2d(3, h['num_classes'], 3, stride=4, padding=1)
        self.load_state_dict(seeded_state(case))
        self.out_channels = h['num_classes']
        self.data_preprocessor = SegDataPreProcessor(mean=h['mean'], std=h['std'])

    def encode_decode(self, inputs: Tensor, metas: list[dict]) -> Tensor:
        size = inputs.shape[2:]
        return F.interpolate(self.conv(inputs), size, mode='bilinear', align_corners=True)

    def test_step(self, data: dict) -> list:
        raise AssertionError('only its logits count')


def run_multi_scale_fusion(case: Case) -> Results:
    h = case.hyper
    model = EncodingTTAModel(
        StandIn(case),
        base_size=h['base_size'],
        crop_size=h['crop_size'],
        scales=h['scales'],
        flip=h['flip'],
        stride=h['stride'],
    )
    images = case.inputs['x']
    meta = dict(ori_shape=images.shape[2:])
    return dict(scores=torch.stack([model.scores(image, meta) for image in images])), {}


def kind(run: Callable[[Case], Results], values: float) -> Kind:
    return Kind(run, values, 1e-4, difference_to_maximum, difference_to_maximum)


KINDS = {
    'pam': kind(run_pam, 1e-5),
    'cam': kind(run_cam, 1e-5),
    'head': kind(run_head, 1e-4),
    'head_loss': kind(run_head_loss, 1e-4),
    'whole': kind(run_whole, 1e-4),
    'multi_scale_fusion': kind(run_multi_scale_fusion, 1e-4),
}
