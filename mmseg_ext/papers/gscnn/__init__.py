"""Gated-SCNN: Gated Shape CNNs for Semantic Segmentation.

Takikawa, Acuna, Jampani, Fidler, ICCV 2019, arXiv 1907.05740. Code: nv-tlabs/GSCNN (CC BY-NC-SA
4.0, non-commercial, of which nothing is here).

A narrow stream at full size finds the edges between classes, gated by what the backbone knows, and
hands them to DeepLabV3+. Differs from the released code, which options reproduce:

- the dual task loss compares borders, as in the paper, and not probabilities;
- the loss of the edges takes their sigmoid once, class 0 has edges too, and losses of images are
  averaged and not summed up, with 0 and not NaN for one without labels;
- the image's edges are found in the image as loaded, not in normalised values cast to bytes.

With the same numbers: edges of labels come from comparisons on the device and not from distance
transforms in the loader, Canny's edges from OpenCV only on a CPU; nothing is concatenated.
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
