"""Pixel contrast: Exploring Cross-Image Pixel Contrast for Semantic Segmentation.

Wang, Zhou, Yu, Dai, Konukoglu, Van Gool, ICCV 2021, arXiv 2101.11939.
Code: tfzhou/ContrastiveSeg (MIT).

Differs from it:

- the memory bank holds every class, each vector belongs to the class that it is stored under, and
  places that no image has filled are not read; new vectors replace the oldest, and all processes
  fill and hold the same bank;
- where a class has a single anchor in an image, it is hard with probability 1/2; the released code
  always draws an easy one;
- a batch without anchors, positives or negatives neither crashes nor gives NaN;
- semi-hard examples, a number of anchors of a class in a batch, and a size of each queue can be
  set, as the paper describes;
- the first 1x1 convolution of the projection runs on each level before it is resized, where the
  code resizes and concatenates the levels first; the second convolution and the normalisation run
  only on drawn pixels;
- similarities to the bank are computed for a few anchors at a time and never stored.
"""

from .embeddings_hook import EmbeddingsHook
from .head import PixelContrastHead
from .loss import PixelContrastLoss
from .memory import MemoryBank

__all__ = ['EmbeddingsHook', 'MemoryBank', 'PixelContrastHead', 'PixelContrastLoss']
