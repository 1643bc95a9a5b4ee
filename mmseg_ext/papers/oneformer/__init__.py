"""OneFormer: One Transformer to Rule Universal Image Segmentation.

Jain, Li, Chiu, Hassani, Orlov, Shi, CVPR 2023, arXiv 2211.06220. Code: SHI-Labs/OneFormer (MIT).

One set of weights gives semantic, instance and panoptic results. The task is a sentence, whose
token becomes the queries. In training each image has a random task, whose targets come from one
panoptic annotation, and a contrastive loss compares the queries with texts about the image.

As released, because the weights depend on it: the values of the query transformer's cross-attention
are positions, and its keys are features; the task token is an MLP of the ids themselves; the
decoder's norm is also that of the token. Differs from the released code:

- the contrastive loss has the gradients of all processes;
- ``seg_logits`` are the logarithms of the semantic scores, so that their softmax is a distribution;
- data with semantic labels only is filled up with "a semantic photo", as in joint training.

Computed in another way, with the same numbers: every different text is encoded once and up to its
end; features are resized before the product with the queries; attention stores no weights; masks
exist for matched queries only, and targets as one map; all costs reach the host in one copy.
"""

from .criterion import Criterion
from .head import OneFormerHead
from .segmentor import OneFormer
from .targets import OneFormerTargets

__all__ = ['Criterion', 'OneFormer', 'OneFormerHead', 'OneFormerTargets']
