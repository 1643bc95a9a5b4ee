"""HANet: Cars Can't Fly up in the Sky: Improving Urban-Scene Segmentation via Height-driven
Attention Networks.

Choi, Kim, Choo, CVPR 2020, arXiv 2003.05128. Code: shachoi/HANet (CC BY-NC 4.0; this package uses
none of it).

The rows of a street scene differ: sky at the top, road at the bottom. HANet multiplies maps of
DeepLabV3+ by gates, one factor for each row and channel. A gate is computed from a lower map and
from the position of each row in the whole picture. Differs from the released code, with the same
numbers unless the list says otherwise:

- A row keeps its position through every transform, crop, flip, window and batch. A row that is
  padded in some columns only counts as a row of the picture; the released code decides by the first
  column.
- Positions are looked up once per batch. An input without positions is taken for a whole picture.
  The released code adds no position code then, but its networks are trained with one.
- A gate reads a map once, as the mean of each row. The pooled image is constant except for its
  gate, so it enters the projection as a bias of each row.
"""

from .attention import HeightAttention, at_height
from .auxiliary_head import HANetAuxHead
from .head import HANetHead
from .positions import AddRowPositions, PackRowPositions, positions_of, sinusoid_table

__all__ = [
    'AddRowPositions',
    'HANetAuxHead',
    'HANetHead',
    'HeightAttention',
    'PackRowPositions',
    'at_height',
    'positions_of',
    'sinusoid_table',
]
