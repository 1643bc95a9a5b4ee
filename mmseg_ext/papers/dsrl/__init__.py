"""DSRL: Dual Super-Resolution Learning for Semantic Segmentation.

Wang, Li, Zhu, Tian, Shan, CVPR 2020, pp. 3774-3783.
Code: Xilinx/DSRL (Apache-2.0), one model for evaluation, without the training code. The DeepLabV3+
form of Dootmaan/DSRL (MIT) is by a third party, not by the authors.

Differs from them:

- it works with any model that has a decode head: the image is halved inside the model, and
  predictions have the size of the image;
- every branch is trained (the third-party code does not optimise the reconstruction);
- padded pixels are no target of the reconstruction;
- the affinity loss never holds a matrix of all pairs, and pixels without features give no gradient.
"""

from .affinity import FeatureAffinityLoss
from .branches import (
    BilinearUpsampler,
    DeconvDecoder,
    DeconvUpsampler,
    ESPCNDecoder,
    PixelShuffleUpsampler,
)
from .segmentor import DSRL, ReconstructionLoss

__all__ = [
    'BilinearUpsampler',
    'DSRL',
    'DeconvDecoder',
    'DeconvUpsampler',
    'ESPCNDecoder',
    'FeatureAffinityLoss',
    'PixelShuffleUpsampler',
    'ReconstructionLoss',
]
