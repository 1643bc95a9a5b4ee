"""HMSA's forward in its plain form, as released: every map at every scale, at full resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
