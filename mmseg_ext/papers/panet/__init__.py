"""PANet: Path Aggregation Network for Instance Segmentation.

Liu, Qi, Qin, Shi, Jia, CVPR 2018, arXiv 1803.01534. Code: ShuLiu1993/PANet (MIT), a
re-implementation by the authors; the code of the paper's results was not released.

Mask R-CNN on FPN with a bottom-up path after the FPN, regions that are pooled from all levels and
fused by their maximum, and a fully-connected branch in the mask head.
"""

from .box_head import PANetBoxHead
from .mask_head import PANetMaskHead
from .neck import PANetFPN
from .pooling import AdaptiveFeaturePooling

__all__ = ['AdaptiveFeaturePooling', 'PANetBoxHead', 'PANetFPN', 'PANetMaskHead']
