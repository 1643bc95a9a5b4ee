"""HMSA's forward in its plain form, as released: every map at every scale, at full resolution."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.baselines import OCRNetHead
from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run

CONFIG = Path(__file__).parents[2] / 'configs' / 'hmsa' / 'hrnet18s_ocr_streets.py'
WIDTHS = [48, 96, 192, 384]  # HRNet-W48


def one_scale(model: nn.Module, image: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, auxiliary logits and attention, each resized to the scaled image."""
    if scale != 1:
        size = [int(n * scale) for n in image.shape[2:]]
        image = F.interpolate(image, size=size, mode='bilinear', align_corners=False)
    head = model.decode_head
    training, head.head.training = head.head.training, True  # for the auxiliary logits alone
    (cls, aux), feats, _ = head.tap(head.head, model.extract_feat(image))
    head.head.training = training
    maps = (cls, aux, head.scale_attn(feats))
    return tuple(
        F.interpolate(m.float(), size=image.shape[2:], mode='bilinear', align_corners=False)
        for m in maps
    )


def to_size(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode='bilinear', align_corners=False)


def n_scale_released(model: nn.Module, image: Tensor, scales: list[float]) -> dict[str, Tensor]:
    """``pred`` and ``aux`` mixed over the scales, beside the maps of every scale."""
    kept: dict[str, Tensor] = {}
    pred = aux = None
    for scale in sorted(scales, reverse=True):
        cls_s, aux_s, attn_s = one_scale(model, image, scale)
        kept[f'pred_{scale}x'], kept[f'attn_{scale}x'] = cls_s, attn_s
        if pred is None:
            pred, aux = cls_s, aux_s
        elif scale >= 1:
            pred = attn_s * cls_s + (1 - attn_s) * to_size(pred, cls_s)
            aux = attn_s * aux_s + (1 - attn_s) * to_size(aux, cls_s)
        else:
            weighted, weighted_aux = attn_s * cls_s, attn_s * aux_s
            weight = to_size(attn_s, pred)
            pred = to_size(weighted, pred) + (1 - weight) * pred
            aux = to_size(weighted_aux, aux) + (1 - weight) * aux
    return dict(kept, pred=pred, aux=aux)


def two_scale_released(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The training graph: half scale first, its weights against full scale."""
    lo_cls, lo_aux, lo_attn = one_scale(model, image, 0.5)
    hi_cls, hi_aux, _ = one_scale(model, image, 1.0)
    weight = to_size(lo_attn, hi_cls)
    return dict(
        cls=to_size(lo_attn * lo_cls, hi_cls) + (1 - weight) * hi_cls,
        aux=to_size(lo_attn * lo_aux, hi_cls) + (1 - weight) * hi_aux,
        lo=torch.as_tensor(to_size(lo_cls, hi_cls)),
        hi=hi_cls,
    )


def _make_inference(device: torch.device) -> tuple[Run, Run]:
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG).model
    cfg.decode_head.num_classes = 65  # Mapillary's
    model = revert_sync_batchnorm(MODELS.build(cfg)).eval().to(device)
    model.test_scales = [Fraction(2), Fraction(1), Fraction(1, 2)]
    image = torch.randn(1, 3, 256, 512, device=device)

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [model(image)]

    def released() -> list[Tensor]:
        with torch.no_grad():
            return [n_scale_released(model, image, [float(s) for s in model.test_scales])['pred']]

    return ours, released


def _make_soft_regions(device: torch.device) -> tuple[Run, Run]:
    head = OCRNetHead(in_channels=WIDTHS, num_classes=19).eval().to(device)
    head.aux_conv.activate = nn.Identity()  # a ReLU turns rounding near 0 into other gradients
    levels = [
        torch.randn(1, width, 128 >> i, 256 >> i, device=device, requires_grad=True)
        for i, width in enumerate(WIDTHS)
    ]

    def concatenating() -> Tensor:
        return head.aux_seg(head.aux_conv(torch.cat([to_size(x, levels[0]) for x in levels], 1)))

    def run(form: Callable[[], Tensor]) -> Run:
        def both_ways() -> list[Tensor]:
            logits = form()
            return [logits, *torch.autograd.grad(logits.square().sum(), levels)]

        return both_ways

    return run(lambda: head._soft_regions(levels)), run(concatenating)


BENCHMARKS = [
    OpBenchmark('hmsa', '256x512, K=65, scales 0.5, 1, 2', _make_inference),
    OpBenchmark('ocr_soft_regions', '720 channels at 128x256', _make_soft_regions),
]
