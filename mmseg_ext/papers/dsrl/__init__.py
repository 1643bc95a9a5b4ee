"""DSRL: Dual Super-Resolution Learning for Semantic Segmentation.

Wang, Li, Zhu, Tian, Shan, CVPR 2020, pp. 3774-3783.
Code: Xilinx/DSRL (Apache-2.0), one model for evaluation, without the training; the DeepLabV3+ form
of Dootmaan/DSRL (MIT) is not the authors'.

Differs from them:

- any model with a decode head takes part: the image is halved inside, predictions have its size;
- every branch is trained (the third-party code leaves out the reconstruction's parameters);
- pixels that were padded are no target of the reconstruction;
- the affinity loss never holds a matrix of all pairs, and pixels without features teach nothing.
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
