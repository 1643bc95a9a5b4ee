"""DSRL: blocks of ESPNetv2, the released network, the third-party DeepLabV3+, losses."""

from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.baselines.espnetv2 import EESP, WIDTHS, DownSampler, PyramidPool, pool_image
from mmseg_ext.convert import convert
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.dsrl import FeatureAffinityLoss, ReconstructionLoss
from tests.parity.case import Case, Kind, Results, load, seeded_state

BN = dict(type='BN')


def run_eesp(case: Case) -> Results:
    h = case.hyper
    common = dict(branches=h['k'], norm_cfg=BN)
    down = DownSampler(h['nin'], h['nout'], receptive_limit=h['r_lim_down'], **common)
    block = EESP(h['nout'], h['nout'], receptive_limit=h['r_lim_eesp'], **common)
    places = {'down.': 'base_net.level2_0.', 'eesp.': 'base_net.level3.0.'}
    state = seeded_state(case)
    for module, (local, released) in zip((down, block), places.items(), strict=True):
        own = {released + n.removeprefix(local): t for n, t in state.items() if n.startswith(local)}
        ours = released.replace('base_net', 'backbone')
        weights = {n.removeprefix(ours): t for n, t in convert('dsrl', own).items()}
        module.load_state_dict(weights)
        module.eval()
    image = case.inputs['image']
    while image.shape[2] > (case.inputs['feat'].shape[2] + 1) // 2:
        image = pool_image(image)
    features = down(case.inputs['feat'], image)
    return dict(down=features, eesp=block(features)), {}


class LastPool(nn.Module):
    """The pyramid that ends in the classifier, as the head has it."""

    def __init__(self, pool: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.pools = nn.ModuleDict({'3': pool})
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.pools['3'](x))


def run_pyramid_pool(case: Case) -> Results:
    h = case.hyper
    widths = h['in_planes'], h['proj_planes']
    scales = dict(scales=h['scales'], norm_cfg=BN)
    if h['last_layer_br']:
        pool: nn.Module = PyramidPool(*widths, h['out_planes'], **scales)
        released, ours = 'bu_dec_l1.', 'decode_head.pools.0.'
    else:
        pool = LastPool(PyramidPool(*widths, **scales), h['proj_planes'], h['out_planes'])
        released, ours = 'bu_dec_l4.', 'decode_head.'
    state = {released + name: t for name, t in seeded_state(case).items()}
    # The converter knows the layout by the encoder's names.
    weights = convert('dsrl', {'base_net.level1.act.weight': torch.zeros(1)} | state)
    del weights['backbone.level1.activate.weight']
    pool.load_state_dict({name.removeprefix(ours): t for name, t in weights.items()})
    return dict(y=pool.eval()(case.inputs['x'])), {}


def run_whole(case: Case) -> Results:
    h = case.hyper
    head = dict(
        type='ESPNetV2Head',
        in_channels=WIDTHS[h['scale']],
        num_classes=h['num_classes'],
        base_channels=h['base_dec_planes'],
    )
    model = MODELS.build(
        dict(
            type='DSRL',
            backbone=dict(type='ESPNetV2', widen_factor=h['scale']),
            decode_head=head,
            sssr=dict(type='DeconvUpsampler', max_classes=h['num_classes']),
            sisr=None,
        )
    )
    load(model, case, paper='dsrl')
    return run_network(model, case.inputs['x'], coarse='coarse', full='logits'), {}


def run_network(model: nn.Module, x: Tensor, *, coarse: str, full: str) -> dict[str, Tensor]:
    """The head on what the network sees, without the halving before it."""
    size = 2 * x.shape[2], 2 * x.shape[3]
    model.halve = lambda images: images
    _, _, logits, whole = model.run_head(model.extract_feat(x), size, {})
    return {coarse: logits, full: whole}


def third_party(case: Case, **kwargs: Any) -> nn.Module:
    backbone = dict(
        type='ResNet',
        depth=int(case.hyper.get('backbone', 'resnet101').removeprefix('resnet')),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=case.hyper.get('layer4_dilations', (2, 4, 8)),
        out_indices=(0, 3),
    )
    model = MODELS.build(
        dict(
            type='DSRL',
            backbone=kwargs.get('backbone', backbone),
            neck=kwargs.get('neck', dict(type='ASPPNeck')),
            decode_head=dict(type='DenseDeepLabHead', num_classes=case.hyper['num_classes']),
            sssr=dict(type='BilinearUpsampler', align_corners=True),
            sisr=dict(type='DeconvDecoder', in_channels=(256, 256)),
            fa_in='outputs',
        )
    )
    load(model, case, paper='dsrl')
    return model


class GivenLevels(nn.Module):
    """Stands for a backbone whose features are given; of an image, blank levels."""

    def forward(self, x: Any) -> Any:
        return [x.new_zeros(1, 256, 8, 8)] * 2 if isinstance(x, Tensor) else x


MODELS.register_module(module=GivenLevels)


def third_party_results(model: nn.Module, levels: Any, size: tuple[int, int]) -> Results:
    *_, full = model.run_head(levels, size, {})
    h, w = levels[0].shape[2:]
    image, _ = model.sisr(levels, (8 * h, 8 * w))  # the released size: that of the logits or more
    return dict(seg=full, sr=image, fa_seg=model.fa_transform(full)), {}


def run_third_party_heads(case: Case) -> Results:
    h, w = case.hyper['input_size']
    model = third_party(case, backbone=dict(type='GivenLevels'), neck=None)
    levels = case.inputs['low'], case.inputs['aspp']
    return third_party_results(model, levels, (2 * h, 2 * w))


def run_third_party_whole(case: Case) -> Results:
    x = case.inputs['x']
    model = third_party(case)
    model.halve = lambda images: images
    return third_party_results(model, model.extract_feat(x), (2 * x.shape[2], 2 * x.shape[3]))


def run_fa_loss(case: Case) -> Results:
    h, inputs = case.hyper, {n: x.requires_grad_() for n, x in case.inputs.items()}
    common = dict(eps=h['eps'])
    seg, sr, seg3, sr3 = (inputs[n] for n in ('seg', 'sr', 'seg3', 'sr3'))
    size = seg.shape[2:]
    loss = FeatureAffinityLoss(p=h['p'], q=h['q'], stride=1, **common)(seg, sr, size)
    squared = FeatureAffinityLoss(p=h['p'], q=2, stride=1, **common)(seg, sr, size)
    plain = FeatureAffinityLoss(p=None, stride=h['third_party_pool'], **common)
    mean = plain(seg3, sr3, seg3.shape[2:])
    grads = dict(zip(('seg', 'sr'), torch.autograd.grad(loss, (seg, sr)), strict=True))
    grads |= zip(('seg3', 'sr3'), torch.autograd.grad(mean, (seg3, sr3)), strict=True)
    outputs = dict(
        loss=loss,
        loss_q2=squared,
        loss_thirdparty=mean * len(seg3),
        loss_thirdparty_mean=mean,
    )
    return outputs, grads


def run_losses(case: Case) -> Results:
    h = case.hyper
    logits, sr = (case.inputs[name].requires_grad_() for name in ('logits', 'sr'))
    label, hr = case.inputs['label'], case.inputs['hr']
    ce, mse = WeightedCELoss(), ReconstructionLoss(loss_weight=1.0)
    weighted = WeightedCELoss(loss_weight=h['w_ce']), ReconstructionLoss(loss_weight=h['w_mse'])
    total = weighted[0](logits, label, ignore_index=h['ignore']) + weighted[1](sr, hr)
    grads = torch.autograd.grad(total, (logits, sr))
    outputs = dict(ce=ce(logits, label, ignore_index=h['ignore']), mse=mse(sr, hr), total=total)
    return outputs, dict(zip(('logits', 'sr'), grads, strict=True))


KINDS = {
    'eesp': Kind(run_eesp, 1e-5),
    'pyramid_pool': Kind(run_pyramid_pool, 1e-5),
    'whole': Kind(run_whole, 1e-4),
    'third_party_heads': Kind(run_third_party_heads, 1e-4),
    'third_party_whole': Kind(run_third_party_whole, 1e-4),
    'fa_loss': Kind(run_fa_loss, 1e-5, 1e-4),
    'losses': Kind(run_losses, 1e-5, 1e-5),
}
