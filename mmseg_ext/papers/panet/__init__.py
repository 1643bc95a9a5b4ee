"""PANet: Path Aggregation Network for Instance Segmentation.

Liu, Qi, Qin, Shi, Jia, CVPR 2018, arXiv 1803.01534. Code: ShuLiu1993/PANet (MIT), a
re-implementation by the authors; the code of the paper's results was not released.

Mask R-CNN on FPN with three additions: a bottom-up path after the FPN, regions that are pooled from
all levels and fused by their maximum, and a fully-connected branch in the mask head. The neck alone
serves semantic models.

As released: the maximum, not the sum, fuses levels; the fully-connected branch ends with a ReLU;
boxes have the released widths and RoIAlign the released offset. Differs from the released code:

- classes have the background last;
- the target of a mask has the pixels at the centres of its cells, not a drawn polygon;
- all anchors take part in training, also those that the image's edge cuts.

Computed in another way, with the same numbers: levels are pooled one after the other into a running
maximum, and masks exist for the class of each region only.
"""

from .box_head import PANetBoxHead
from .head import PANetInstanceHead
from .mask_head import PANetMaskHead
from .neck import PANetFPN
from .pooling import AdaptiveFeaturePooling
from .segmentor import PANetInstanceSegmentor

__all__ = [
    'AdaptiveFeaturePooling',
    'PANetBoxHead',
    'PANetFPN',
    'PANetInstanceHead',
    'PANetInstanceSegmentor',
    'PANetMaskHead',
]
