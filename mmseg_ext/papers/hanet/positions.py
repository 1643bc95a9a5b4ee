"""Positions of the rows of an input in the whole picture, and the transforms that keep them."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS
from torch import Tensor

from ...errors import UserError

Size = tuple[int, int]  # (h, w)

POSITIONS = 128  # rows of the whole picture that are told apart; the number 128 itself is padding
ROW_MAP = 'gt_row_pos'  # of a pipeline's results
ROW_META = 'row_pos'  # of a sample's metainfo


@TRANSFORMS.register_module()
class AddRowPositions(BaseTransform):
    """Adds a map of each pixel's row in the whole picture, from 0 (top) to 127.

    It stands among the ``seg_fields``, which resizes, crops, flips and rotations treat like labels,
    and has to come before all that crop or pad. ``PackRowPositions`` hands it to the model.
    """

    def transform(self, results: dict) -> dict:
        h, w = results['img'].shape[:2]
        rows = (2 * np.arange(h) + 1) * POSITIONS // (2 * h)
        results[ROW_MAP] = np.repeat(rows[:, None].astype(np.uint8), w, axis=1)
        fields = results.setdefault('seg_fields', [])
        if ROW_MAP not in fields:
            fields.append(ROW_MAP)
        return results

    def __repr__(self) -> str:
        return 'AddRowPositions()'


@TRANSFORMS.register_module()
class PackRowPositions(PackSegInputs):
    """The host's ``PackSegInputs``, with the positions of the rows as metainfo ``row_pos``.

    They are uint8 (H,), 0 to 127 and 128 for rows of padding; where rows are mixed, as by a
    rotation, the uppermost counts.

    Raises:
        ValueError: there are no positions, or a transform changed the image without them.
    """

    def transform(self, results: dict) -> dict:
        if ROW_MAP not in results:
            raise UserError(
                "PackRowPositions found no positions of rows: put dict(type='AddRowPositions') "
                'before the first crop of the pipeline'
            )
        positions, size = results[ROW_MAP], results['img'].shape[:2]
        if positions.shape != size:
            raise UserError(
                f'the image is {size} and the positions of its rows {positions.shape}: a transform '
                'left them behind; RandomScaleCrop pads both, Pad does not'
            )
        packed = super().transform(results)
        rows = np.minimum(positions, POSITIONS).min(axis=1)
        packed['data_samples'].set_metainfo({ROW_META: rows})
        return packed


def positions_of(meta: dict, size: Size, rows: int, device: torch.device) -> Tensor:
    """Positions, 0 to 128, of ``rows`` rows of an input: each the first of as many equal parts.

    Args:
        meta: Of the image; ``row_pos`` where the pipeline found it, else the image is a whole
            picture, unless its vertical flip says otherwise. ``window`` and ``window_of`` tell the
            place of the input in it. All may be missing.
        size: (H, W) of the input; what lies below the image is padding.
        rows: Their number.
        device: Of the result.

    Returns:
        (rows,), int64.
    """
    row = torch.arange(rows, device=device) * size[0] // rows
    if 'window' in meta:
        row = row + meta['window'][0]
        height = meta['window_of'][0]
    else:
        height = min(meta['img_shape'][0], size[0]) if 'img_shape' in meta else size[0]
    if ROW_META in meta:
        known = torch.as_tensor(meta[ROW_META], device=device).long()
        inside = row.clamp(max=len(known) - 1)
        return torch.where(row < len(known), known[inside], POSITIONS)
    flipped = meta.get('flip') and meta.get('flip_direction') in ('vertical', 'diagonal')
    upright = height - 1 - row if flipped else row
    return torch.where(row < height, (2 * upright + 1) * POSITIONS // (2 * height), POSITIONS)


def sinusoid_table(count: int, channels: int) -> Tensor:
    """Code (count, channels) of each position: sine and cosine in turn, plus 1, so from 0 to 2.

    As released, their wavelengths grow up to the base 10 beyond 50 channels, else up to 100.
    """
    position = torch.arange(count, dtype=torch.float64)[:, None]
    channel = torch.arange(channels)
    angle = position / (10.0 if channels > 50 else 100.0) ** (2 * (channel // 2) / channels)
    return (torch.where(channel % 2 == 0, angle.sin(), angle.cos()) + 1).float()
