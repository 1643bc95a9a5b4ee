"""Gated-SCNN: Gated Shape CNNs for Semantic Segmentation.

Takikawa, Acuna, Jampani, Fidler, ICCV 2019, arXiv 1907.05740. Code: nv-tlabs/GSCNN (CC BY-NC-SA
4.0, non-commercial; no code was copied from it).

A narrow stream at full size finds the edges between classes. Levels of the backbone gate it, and
DeepLabV3+ reads its edges. Differs from the released code, which options reproduce:

- the dual task loss compares borders, as in the paper, and not probabilities; it is the mean over
  all labelled pixels, while the paper sums over active borders;
- the loss of the edges applies the sigmoid once, and class 0 has edges too;
- losses of the images of a batch are averaged, not summed; an image without labels has the loss 0,
  not NaN;
- Canny's edges are computed from the image as loaded, not from normalised values cast to bytes.

Computed in another way, with the same numbers: edges of labels come from comparisons on the device,
not from distance transforms in the data loader; Canny's edges come from OpenCV only on a CPU;
features are never concatenated.
"""

from .canny import canny
from .edges import BalancedEdgeLoss, class_edges
from .head import EdgePyramid, GatedConv, GSCNNHead, ShapeStream
from .segmentor import GSCNN

__all__ = [
    'GSCNN',
    'BalancedEdgeLoss',
    'EdgePyramid',
    'GSCNNHead',
    'GatedConv',
    'ShapeStream',
    'canny',
    'class_edges',
]
