"""HANet: Cars Can't Fly up in the Sky: Improving Urban-Scene Segmentation via Height-driven
Attention Networks.

Choi, Kim, Choo, CVPR 2020, arXiv 2003.05128. Code: shachoi/HANet (CC BY-NC 4.0, of which nothing is
here).

Rows of street scenes differ: sky above, road below. Gates for each row and channel, made from a
lower map and from where in the whole picture the row lies, multiply a higher map of DeepLabV3+.
Differs from the released code, with the same numbers where nothing else is said:

- a row keeps its position through any transform, crop, flip, window or batch, and rows that are
  padded in a part of their columns count as rows of the picture (as padding there, where the first
  column is);
- positions are looked up once a batch, and without any the input is a whole picture (there nothing
  is added, which a trained network does not stand);
- a gate reads a map once, as means of its rows; the pooled image, constant but for its gate, joins
  the projection as a bias of each row.
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
