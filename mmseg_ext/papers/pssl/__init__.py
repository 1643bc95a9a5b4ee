"""PSSL: Distilling Ensemble of Explanations for Weakly-Supervised Pre-Training of Image
Segmentation Models.

Li, Xiong, Liu, Zhou, Chen, Wang, Dou, Machine Learning 2022, arXiv 2207.03335. Released code:
PaddlePaddle/PaddleSeg and PaddlePaddle/InterpretDL (Apache-2.0).

Classifiers explain why they see the class of an image. The pixels that matter most to them get
this class, and a whole segmentation network is pre-trained on these labels: its backbone and its
head. Differs from the released code:

- The program that makes the labels was not released; ours is ``tools/pssl_labels.py``.
- Every image is explained for its class alone. The release of InterpretDL that we compare with
  adds up the probabilities of all labels of a batch.
- The set of 15 classifiers of the paper is not established. Any classifiers can be given, and by
  default each has the same weight in the consensus.
- The loss never holds the logits of all classes at the size of the image.
"""

from .dataset import LoadPSSLLabel, PSSLDataset
from .explanations import consensus, explanation_map, smoothgrad
from .pixel_labels import deciles, labels, top_decile

__all__ = [
    'LoadPSSLLabel',
    'PSSLDataset',
    'consensus',
    'deciles',
    'explanation_map',
    'labels',
    'smoothgrad',
    'top_decile',
]
