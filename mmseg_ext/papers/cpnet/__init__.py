"""CPNet: Context Prior for Scene Segmentation.

Yu, Wang, Gao, Yu, Shen, Sang, CVPR 2020, arXiv 2004.01547.
Code: ycszen/ContextPrior (no licence; this package uses none of it).

Differs from it:

- The head takes images of any size. The released head stops unless its features have the prior's
  size. Here the cells of the prior are features resampled to its grid, which changes nothing at the
  prior's size.
- The context of other classes is the mean feature minus the context of the same class. This saves a
  matrix product and a matrix of all pairs. Prediction holds the prior of a few pixels at a time.
- The affinity loss sums over blocks of pairs; the released code makes ten matrices of all pairs.
  The loss takes logits, so it is exact where a rounded sigmoid would be 0 or 1.
- Training works on a CPU and with a batch of a single image.
"""

from .affinity import AffinityLoss, affinity_terms
from .head import Aggregation, CPNetHead, resample

__all__ = ['AffinityLoss', 'Aggregation', 'CPNetHead', 'affinity_terms', 'resample']
