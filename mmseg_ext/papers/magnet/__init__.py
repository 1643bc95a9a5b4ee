"""MagNet: Progressive Semantic Segmentation.

Huynh, Tran, Luu, Hoai, CVPR 2021, pp. 16755-16764, arXiv 2104.03778.
Code: VinAIResearch/MagNet (AGPL-3.0; this package uses none of it).

Differs from it:

- The refiner gets its two inputs in the same order in training and at inference.
- MagNet-Fast refines the patches with the largest uncertainty; the released code refines those with
  the smallest. Only points inside these patches change.
- Pixels of equal score are ranked by their position, so every run and device selects the same.
- Patches cover images of any size. Where patches overlap, their mean counts.
- All patches of a stage run in batches. Points are selected on the small grid of the scores.
- The coarsest and the finest input come from the same image on the device, which is normalised
  before it is resized. The released code resizes files to uint8 once for every scale.
"""

from .refiner import MagNetRefiner
from .segmentor import MagNet

__all__ = ['MagNet', 'MagNetRefiner']
