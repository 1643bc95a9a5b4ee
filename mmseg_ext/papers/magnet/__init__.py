"""MagNet: Progressive Semantic Segmentation.

Huynh, Tran, Luu, Hoai, CVPR 2021, pp. 16755-16764, arXiv 2104.03778.
Code: VinAIResearch/MagNet (AGPL-3.0; nothing of it is here).

Differs from it:

- the refiner sees its two inputs in the same order in training and at inference;
- with few patches those of the largest uncertainty are refined, not those of the smallest, and
  only points inside them change;
- equal scores are ranked by the place of the pixel, so that every run and device picks the same;
- patches cover the image whatever its size; where they overlap, their mean counts;
- all patches of a stage run in batches, points are chosen on the small grid that they come from;
- the coarsest and the finest prediction are cut from one image on the device, normalised before it
  is resized; the released code resizes files to uint8 once for every scale.
"""

from .refiner import MagNetOhemLoss, MagNetRefiner
from .segmentor import MagNet

__all__ = ['MagNet', 'MagNetOhemLoss', 'MagNetRefiner']
