"""CPNet: aggregation, head, affinity loss, training step, whole network."""

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.papers.cpnet import AffinityLoss, Aggregation, affinity_terms
from tests.oracles.cpnet import affinity
from tests.parity.case import Case, Kind, Results, difference_to_maximum, load


def head_cfg(case: Case, **kwargs: Any) -> dict[str, Any]:
    h = case.hyper
    sizes = ('channels', 'prior_channels', 'prior_size', 'am_kernel_size', 'groups', 'num_classes')
    return dict(
        type='CPNetHead',
        in_channels=h['in_channels'],
        align_corners=h.get('align_corners', False),
        dropout_ratio=h.get('dropout', 0.1),
        ignore_index=h.get('ignore_index', 255),
        **{key: h[key] for key in sizes if key in h},
        **kwargs,
    )


def seeded_head(case: Case) -> nn.Module:
    head = MODELS.build(head_cfg(case))
    load(head, case, paper='cpnet', prefix='decode_head.', ours='decode_head.')
    return head


def logits_and_prior(head: nn.Module, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Both, and the prior as a row for each pixel; norms and dropout stay in eval."""
    head.training = True
    logits, prior = head(levels)
    head.training = False
    torch.testing.assert_close(head(levels), logits, rtol=1e-5, atol=1e-5)
    return logits, prior.flatten(2).mT.sigmoid()


def run_aggregation(case: Case) -> Results:
    h = case.hyper
    aggregation = Aggregation(
        h['in_channels'], h['out_channels'], h['kernel_size'], norm_cfg=dict(type='BN')
    )
    name = 'decode_head.aggregation.'
    load(aggregation, case, paper='cpnet', prefix=name, ours=name)
    return dict(y=aggregation(case.inputs['x'])), {}


@torch.no_grad()
def run_head(case: Case) -> Results:
    logits, prior = logits_and_prior(seeded_head(case), [case.inputs['x']])
    return dict(logits=logits, prior=prior), {}


def run_affinity_loss(case: Case) -> Results:
    h = case.hyper
    n = case.inputs['logit'].shape[0]
    rows = case.inputs['logit'].requires_grad_()  # (N, pixels, cells)
    prior, label = rows.mT.reshape(n, -1, *h['size']), case.inputs['label']
    grid, ignore_index = tuple(h['size']), h['ignore_index']
    loss = AffinityLoss(loss_weight=h['loss_weight'])
    total = loss(prior, label, grid, ignore_index)['loss_prior']
    (grad,) = torch.autograd.grad(total, rows)
    terms = affinity_terms(prior, label, grid, ignore_index=ignore_index)
    target = affinity(torch.where(label == ignore_index, 255, label), grid)
    return dict(terms, total=total, affinity=target.float()), dict(logit=grad)


def run_head_loss(case: Case) -> Results:
    head, x = seeded_head(case).train(), case.inputs['x'].requires_grad_()
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in case.inputs['label']
    ]
    logits, prior = head([x])
    losses = head.loss_by_feat((logits, prior), samples)
    (losses['loss_ce'] + losses['loss_prior']).backward()
    outputs = dict(loss_seg=losses['loss_ce'], loss_prior=losses['loss_prior'], logits=logits)
    return outputs, dict(x=x.grad, prior_weight=head.prior_conv.conv.weight.grad)


@torch.no_grad()
def run_whole(case: Case) -> Results:
    h, x = case.hyper, case.inputs['x']
    model = MODELS.build(
        dict(
            type='WindowedEncoderDecoder',
            backbone=dict(
                type='ResNetV1c',
                depth=h['depth'],
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4),
                contract_dilation=True,
            ),
            decode_head=head_cfg(case, in_index=3),
            auxiliary_head=dict(
                type='FCNHead',
                in_channels=h['in_channels'] // 2,
                in_index=2,
                channels=256,
                num_convs=1,
                concat_input=False,
                norm_cfg=dict(type='BN'),
                num_classes=h['num_classes'],
            ),
            test_cfg=dict(mode='whole'),
        )
    )
    load(model, case, paper='cpnet')
    levels = model.extract_feat(x)
    logits, prior = logits_and_prior(model.decode_head, levels)
    size = tuple(x.shape[2:])
    full = model.encode_decode(x, [dict(img_shape=size, pad_shape=size)] * len(x))
    aux = model.auxiliary_head(levels)
    return dict(logits=logits, prior=prior, aux=aux, full=full), {}


KINDS = {
    'aggregation': Kind(run_aggregation, 1e-5),
    'head': Kind(run_head, 1e-5),
    'affinity_loss': Kind(run_affinity_loss, 1e-5, 1e-4, difference_to_maximum),
    'head_loss': Kind(run_head_loss, 1e-4, 1e-4, difference_to_maximum),
    'whole': Kind(run_whole, 1e-4),
}
