"""Maps that explain instances: the level that wins the fusion, and both branches of the mask."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...segmentors.protocols import Maps
from .boxes import rois_of
from .instances import Detections, paste, windows_of
from .settings import Inference

SHOWN = 6  # regions
SHOWN_MASKS = 2  # instances whose branches are shown


def explain_regions(head: Any, levels: Sequence[Tensor]) -> Maps:
    """Maps of the regions with the highest scores.

    Args:
        head: ``PANetInstanceHead``.
        levels: Levels (N, C, H_i, W_i) of the neck.

    Returns:
        - ``winning_level`` (N, 1, H, W) in [0, 1]: the level that wins most channels of each cell
          of a region, from 0, the finest, to 1, the coarsest; 0 outside of the regions.
        - ``share_of_levels`` (N, S, M, 1): fraction of the features of each of M regions (rows)
          that each of S levels (columns) wins.
        - ``mask_<i>_main``, ``mask_<i>_fc`` (N, 1, H, W): logits of the branches for the i-th
          region; ``mask_<i>_sum``: the probability of their sum. Outside of the region they have
          its smallest value. For a single image the names also have the class and the score.

        Where regions are pooled from one level, the first two are omitted; without fusion, those of
        the fully-connected branch.
    """
    settings = Inference(score_threshold=0.0, max_instances=SHOWN)
    size = head.extent(levels)
    detections = head.detect(levels, windows_of([{}] * len(levels[0]), size), settings)
    count = min(len(item.scores) for item in detections)
    detections = [Detections(*(values[:count] for values in item)) for item in detections]
    read = [levels[i] for i in head.in_index]
    rois = rois_of([item.boxes for item in detections])
    canvas = levels[0].new_zeros(len(detections), 1, *size)
    maps: Maps = {}
    if head.pooling.takes_all_levels:
        winner = _winners(head.box_head, head.pooling(read, rois, head.box_head.roi_size))
        num_levels = len(head.box_head.levels)
        shares = torch.stack([(winner == i).float().flatten(1).mean(1) for i in range(num_levels)])
        if winner.ndim == 4:
            cells = winner.mode(1).values.float() / (num_levels - 1)  # (M, R, R)
            maps['winning_level'] = _pasted(canvas, detections, cells, range(count))
        maps['share_of_levels'] = shares.view(num_levels, -1, count, 1).transpose(0, 1)
    labels = torch.cat([item.labels for item in detections])
    features = head.mask_head.features(head.pooling(read, rois, head.mask_head.roi_size))
    branches = dict(main=head.mask_head.main_logits(features.main, labels))
    total = branches['main']
    if features.fc is not None:
        branches['fc'] = features.fc[:, 0]
        total = total + branches['fc']
    branches['sum'] = total.sigmoid()
    for i in range(min(SHOWN_MASKS, count)):
        title = _title(head.dataset_meta, detections, i)
        for name, values in branches.items():
            lowest = values.unflatten(0, (-1, count))[:, i].flatten(1).amin(1)
            outside = canvas + lowest.to(canvas)[:, None, None, None]
            maps[f'mask_{i + 1}_{name}{title}'] = _pasted(outside, detections, values, [i])
    return maps


def _winners(box_head: Any, grids: Any) -> Tensor:
    """Number of the level with the largest feature behind the first layers, (M, C, R, R)."""
    return torch.stack([layer(x) for layer, x in zip(box_head.levels, grids, strict=True)]).argmax(
        0
    )


def _pasted(
    canvas: Tensor, detections: Sequence[Detections], values: Tensor, chosen: Sequence[int]
) -> Tensor:
    """Values (M, R, R) of the chosen regions of each image, in maps like ``canvas``.

    Regions with a high score cover those with a lower one.
    """
    result = canvas.clone()
    count = len(detections[0].scores)
    for image, item, cells in zip(result, detections, values.float().split(count), strict=True):
        pasted = list(paste(item._replace(masks=cells), (image.shape[1], image.shape[2])))
        for i in sorted(chosen, reverse=True):
            rows, columns, pixels = pasted[i]
            image[0, rows, columns] = pixels.to(image)
    return result


def _title(meta: Any, detections: Sequence[Detections], i: int) -> str:
    """Class and score of a region, for a batch of one image; images of a batch share the names."""
    if len(detections) > 1:
        return ''
    label, score = int(detections[0].labels[i]), float(detections[0].scores[i])
    names = meta.get('classes') or ()
    return f': {names[label] if label < len(names) else label} {score:.2f}'
