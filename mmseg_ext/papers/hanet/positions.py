"""Positions of rows in the whole picture, and the transforms that keep them."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS
from torch import Tensor

from ...errors import UserError
from ...layers.sizes import Size, unpadded_size

POSITIONS = 128  # a position is 0 (top row) to 127 (bottom row); 128 stands for padding
ROW_MAP = 'gt_row_pos'  # key in the results of a pipeline
ROW_META = 'row_pos'  # key in the metainfo of a sample


@TRANSFORMS.register_module()
class AddRowPositions(BaseTransform):
    """Adds a map with the row position of each pixel, from 0 (top) to 127.

    The map is one of the ``seg_fields``, so resizes, crops, flips and rotations treat it like a
    label. This transform must come before the first transform that crops or pads.
    ``PackRowPositions`` passes the positions to the model.
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
    """Packs as ``PackSegInputs``, and adds the row positions as metainfo ``row_pos``.

    The positions are uint8 (H,): 0 to 127, and 128 for rows of padding. A rotation mixes rows; the
    smallest position in a row counts then.

    Raises:
        UserError: There are no positions, or a transform changed the image and not the positions.
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
                'changed only the image; RandomScaleCrop pads both, Pad does not'
            )
        packed = super().transform(results)
        rows = np.minimum(positions, POSITIONS).min(axis=1)
        packed['data_samples'].set_metainfo({ROW_META: rows})
        return packed


def positions_of(meta: dict, size: Size, rows: int, device: torch.device) -> Tensor:
    """Positions (0 to 128) of an input that is pooled to ``rows`` rows.

    The input is cut into ``rows`` equal strips. Each strip has the position of its first row.

    Args:
        meta: Metainfo of the image; every key may be missing. ``row_pos`` holds the positions that
            the pipeline packed. Without it the image is a whole picture, and a vertical flip
            reverses the positions. ``window`` and ``window_of`` say which window of the image the
            input is.
        size: Size (H, W) of the input. Rows below the image are padding.
        rows: Number of rows that the input is pooled to.
        device: Device of the result.

    Returns:
        (rows,), int64.
    """
    row = torch.arange(rows, device=device) * size[0] // rows
    if 'window' in meta:
        row = row + meta['window'][0]
        height = meta['window_of'][0]
    else:
        height = unpadded_size(meta, size)[0]
    if ROW_META in meta:
        packed = torch.as_tensor(meta[ROW_META], device=device).long()
        inside = row.clamp(max=len(packed) - 1)
        return torch.where(row < len(packed), packed[inside], POSITIONS)
    flipped = meta.get('flip') and meta.get('flip_direction') in ('vertical', 'diagonal')
    upright = height - 1 - row if flipped else row
    return torch.where(row < height, (2 * upright + 1) * POSITIONS // (2 * height), POSITIONS)


def sinusoid_table(count: int, channels: int) -> Tensor:
    """Code of each position, (count, channels): a sine or cosine plus 1, so from 0 to 2.

    Channel c of position p is sin(p / base^(c / channels)) + 1 for even c, and
    cos(p / base^((c - 1) / channels)) + 1 for odd c. As released, the base is 10 for more than 50
    channels and 100 otherwise.
    """
    position = torch.arange(count, dtype=torch.float64)[:, None]
    channel = torch.arange(channels)
    angle = position / (10.0 if channels > 50 else 100.0) ** (2 * (channel // 2) / channels)
    return (torch.where(channel % 2 == 0, angle.sin(), angle.cos()) + 1).float()
