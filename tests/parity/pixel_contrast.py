"""Pixel contrast: networks, losses, sampling and the memory bank."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.pixel_contrast import MemoryBank, PixelContrastLoss
from mmseg_ext.papers.pixel_contrast.sampling import (
    by_image,
    count_cells,
    labels_at,
    pixels_at,
)
from tests.oracles.pixel_contrast import infonce_memory_released, region_pointers_released
from tests.parity.case import Case, Kind, Results, load
from tests.parity.hmsa import hrnet_cfg

W48 = [48, 96, 192, 384]


def run_network(case: Case, backbone: dict, head: dict, aux: dict | None = None) -> Results:
    shared = dict(num_classes=case.hyper['num_classes'], norm_cfg=dict(type='BN'))
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=backbone,
            decode_head=dict(
                type='PixelContrastHead', head=head, proj_channels=case.hyper['proj_dim'], **shared
            ),
            auxiliary_head=dict(aux, **shared) if aux else None,
            test_cfg=dict(mode='whole'),
        )
    )
    load(model, case, paper='pixel_contrast')
    levels = model.backbone(case.inputs['x'])
    results = dict(seg=model(case.inputs['x']), embed=model.decode_head.embed(levels))
    if aux:
        results['seg_aux'] = model.auxiliary_head(levels)
    return results, {}


def run_hrnet(case: Case) -> Results:
    head = dict(
        type='FCNHead',
        num_convs=1,
        concat_input=False,
        channels=sum(W48),
        in_channels=W48,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        align_corners=True,
    )
    backbone = hrnet_cfg(W48, 4, [1, 4, 3], 4)
    return run_network(case, dict(backbone, align_corners=True), head)


def run_deeplabv3(case: Case) -> Results:
    backbone = dict(
        type='OpensegResNet',
        depth=case.hyper['depth'],
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
    )
    head = dict(type='OpensegASPPHead', in_channels=2048, in_index=3, align_corners=True)
    aux = dict(
        type='FCNHead',
        num_convs=1,
        concat_input=False,
        channels=256,
        in_channels=1024,
        in_index=2,
        dropout_ratio=0.0,
    )
    return run_network(case, backbone, head, aux)


def contrast_loss(hyper: dict, **kwargs: Any) -> PixelContrastLoss:
    names = ('temperature', 'base_temperature', 'max_samples', 'max_views')
    kwargs = {name: hyper[name] for name in names if name in hyper} | dict(loss_weight=1.0) | kwargs
    return PixelContrastLoss(**kwargs)


def anchors_of(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Leaf of groups (G, n, D), its rows, their classes, all of them valid."""
    x = case.inputs['x'].requires_grad_()
    classes = case.inputs['y'].long().repeat_interleave(x.shape[1])
    return x, x.flatten(0, 1), classes, torch.ones_like(classes, dtype=torch.bool)


def run_infonce(case: Case) -> Results:
    x, *anchors = anchors_of(case)
    value = contrast_loss(case.hyper)(*anchors)
    value.backward()
    return dict(loss=value), dict(x=x.grad)


def run_infonce_memory(case: Case) -> Results:
    loss, queue = contrast_loss(case.hyper), case.inputs['queue']
    k, m, d = queue.shape
    bank = MemoryBank(k, d, size=m, queues=('pixel',))
    bank.vectors.copy_(queue[:, None])
    values, grads = {}, {}
    for name, filled in (('', torch.full((k,), m)), ('_valid', case.inputs['nvalid'])):
        bank.written.copy_(filled[:, None])
        x, *anchors = anchors_of(case)
        x.grad = None
        values[f'loss{name}'] = loss(*anchors, bank)
        values[f'loss{name}'].backward()
        grads[f'x{name}'] = x.grad
    # the released code puts the first views of all groups first
    views, classes = x.transpose(0, 1).flatten(0, 1), case.inputs['y'].long().repeat(x.shape[1])
    temperatures = case.hyper['temperature'], case.hyper['base_temperature']
    values['loss_official'] = infonce_memory_released(views, classes, queue, *temperatures)
    return values, grads


def contrast_of_maps(
    loss: nn.Module, embed: Tensor, label: Tensor, prediction: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The loss of unit vectors (N, D, h, w), and the places of its anchors."""
    anchors = loss.sample(label, prediction, num_classes)
    value = loss(pixels_at(embed, anchors.pixel_index), anchors.classes, anchors.valid)
    return value, anchors.pixel_index[anchors.valid]


def run_criterion(case: Case) -> Results:
    h, label = case.hyper, case.inputs['label'].long()
    maps = {name: x.requires_grad_() for name, x in case.inputs.items() if x.is_floating_point()}
    cross_entropy = WeightedCELoss(class_weight=h['class_weight'])
    weights = {name: h['aux_weight'] for name in maps} | dict(seg=1.0, embed=0.0)

    def of_scores(scores: Tensor) -> Tensor:
        size = label.shape[1:]
        full = F.interpolate(scores, size=size, mode='bilinear', align_corners=True)
        return cross_entropy(full, label, ignore_index=h['ignore_label'])

    warm = sum(w * of_scores(maps[name]) for name, w in weights.items() if w)
    size = tuple(maps['embed'].shape[2:])
    small = labels_at(label, size, h['num_classes'], h['ignore_label'])
    prediction = maps['seg'].argmax(1)
    contrast, _ = contrast_of_maps(
        contrast_loss(h), maps['embed'], small, prediction, h['num_classes']
    )
    value = warm + h['loss_weight'] * contrast
    value.backward()
    results = dict(loss=value, loss_warmup=warm, contrast=contrast)
    return results, {name: x.grad for name, x in maps.items()}


def run_loss_with_sampling(case: Case) -> Results:
    h, feats = case.hyper, case.inputs['feats'].requires_grad_()
    k, prediction = h['num_classes'], case.inputs['predict'].long()
    loss, size = contrast_loss(h), tuple(feats.shape[2:])
    ignored = labels_at(case.inputs['label_allignored'].long(), size, k, h['ignore_label'])
    nothing, _ = contrast_of_maps(loss, feats, ignored, prediction, k)
    nothing.backward()
    assert not feats.grad.any()
    label = labels_at(case.inputs['label'].long(), size, k, h['ignore_label'])
    value, places = contrast_of_maps(loss, feats, label, prediction, k)
    value.backward()

    n = len(label)
    cells = 2 * by_image(label, k) + (prediction != label).flatten(1)
    cells = cells.flatten().clamp(max=2 * n * k)
    grad = feats.new_zeros(2 * n * k + 1, feats.shape[1])
    grad.index_add_(0, cells, feats.grad.movedim(1, 3).flatten(0, 2))
    views = count_cells(cells[places] // 2, n * k)
    views = views[views > 0]
    assert (views == views[0]).all()
    results = dict(
        loss=value,
        loss_allignored=nothing,
        counts=count_cells(cells, 2 * n * k + 1)[:-1].view(n, k, 2),
        n_view=views[0],
        n_groups=len(views),
        grad_group=grad[:-1].view(n, k, 2, -1),
    )
    return results, {}


def run_memory_update(case: Case) -> Results:
    h, keys = case.hyper, case.inputs['keys']
    k, m, pixels = h['num_classes'], h['memory_size'], h['pixel_update_freq']
    bank = MemoryBank(k, keys.shape[2], size=m, pixels_per_image=pixels)
    for i, queue in enumerate(('region', 'pixel')):
        bank.vectors[:, i] = case.inputs[f'{queue}_queue0']
    bank.written.fill_(h['start_ptr_and_count'])
    size = tuple(keys.shape[3:])
    labels = [labels_at(x.long(), size, k, h['ignore']) for x in case.inputs['labels']]
    for embed, label in zip(keys, labels, strict=True):
        bank.update(label, embed, lambda rows: rows)
    region, pixel = bank.vectors.unbind(1)
    pointer, count = bank.written % m, bank.count
    results = dict(
        region_queue=region,
        region_ptr=pointer[:, 0],
        region_count=count[:, 0],
        pixel_ptr=pointer[:, 1],
        pixel_count=count[:, 1],
        pixel_slot_image=_images_of(pixel, keys, labels, case.inputs['pixel_queue0']),
        pixel_ptr_official=region_pointers_released(torch.cat(labels), k, m, pixels),
    )
    if h['start_ptr_and_count']:  # of an untouched run only
        results['pixel_ptr_official'] = torch.from_numpy(case.outputs['pixel_ptr_official'])
    return results, {}


def _images_of(pixel: Tensor, keys: Tensor, labels: list[Tensor], before: Tensor) -> np.ndarray:
    """Which image's pixel of the queue's own class lies in each place, -1 where none was put.

    No pixel of an image lies in a queue twice.
    """
    images = np.full(pixel.shape[:2], -1)
    rows, own = keys.flatten(0, 1).flatten(2).mT, torch.cat(labels).flatten(1)  # (I, hw, D)
    seen = set()
    for c, slot in np.ndindex(*images.shape):
        if torch.equal(pixel[c, slot], before[c, slot]):
            continue
        found = ((rows == pixel[c, slot]).all(2) & (own == c)).nonzero()
        assert len(found) == 1
        image, place = found[0].tolist()
        assert (c, image, place) not in seen
        seen.add((c, image, place))
        images[c, slot] = image
    return images


KINDS = {
    'whole_hrnet': Kind(run_hrnet, 1e-4),
    'whole_deeplabv3': Kind(run_deeplabv3, 1e-4),
    'infonce': Kind(run_infonce, 1e-5, 1e-5),
    'infonce_memory': Kind(run_infonce_memory, 1e-5, 1e-5),
    'criterion': Kind(run_criterion, 1e-5, 1e-5),
    'loss_with_sampling': Kind(run_loss_with_sampling, 1e-5, 1e-5),
    'memory_update': Kind(run_memory_update, 1e-6),
}
