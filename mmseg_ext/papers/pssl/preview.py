"""A picture of how a label is made."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmseg_ext.visualization.pictures import Panel, draw_maps, draw_strip, write_picture

from .pixel_labels import TENTHS, TOP

COLORS = [[255, 60, 60]]


def draw_preview(
    path: Path, image: Tensor, importances: Sequence[Tensor], tenths: Tensor, name: str
) -> None:
    """Writes a strip: image, maps of the first and of all classifiers, tenths, and label.

    Args:
        path: Path of the picture.
        image: Image, RGB, uint8 (3, H, W).
        importances: Consensus of the first classifier and of all, (H, W) each, or of a single one.
        tenths: Deciles, (H, W).
        name: Class of the image.
    """
    rgb = image.permute(1, 2, 0).cpu().numpy()
    captions = ['1 classifier', 'all classifiers'][: len(importances)]
    maps = {
        caption: (x / x.quantile(0.99).clamp(min=torch.finfo(x.dtype).tiny)).clamp(max=1)[None]
        for caption, x in zip(captions, importances, strict=True)
    }
    maps['tenths'] = tenths[None].float() / TENTHS
    maps['label'] = torch.where(tenths == TOP, 0, 1)[None]
    panels = [Panel(f'{name}: image', rgb), *draw_maps(maps, rgb, COLORS)]
    write_picture(path, draw_strip(panels, columns=len(panels)))
