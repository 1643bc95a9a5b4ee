"""Pixel contrast: Exploring Cross-Image Pixel Contrast for Semantic Segmentation.

Wang, Zhou, Yu, Dai, Konukoglu, Van Gool, ICCV 2021, arXiv 2101.11939.
Code: tfzhou/ContrastiveSeg (MIT).

Differs from it:

- the memory bank holds every class, pixels of the class that they are filed under, and nothing that
  no image has filled; it wraps around, and all processes hold the same bank, filled by all;
- of an anchor's single view, half are hard where the release draws easy ones only;
- nothing crashes or becomes NaN where there is no anchor, no positive or no negative;
- semi-hard examples, which the paper describes, can be drawn;
- a 1x1 convolution of resized, concatenated levels runs on each level before it is resized; its
  second one and the normalisation run on drawn pixels only; similarities to the bank are made for a
  few anchors at a time and never kept.
"""

from .embeddings_hook import EmbeddingsHook
from .head import PixelContrastHead
from .loss import PixelContrastLoss
from .memory import MemoryBank

__all__ = ['EmbeddingsHook', 'MemoryBank', 'PixelContrastHead', 'PixelContrastLoss']
