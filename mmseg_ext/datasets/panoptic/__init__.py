"""Data sets whose labels hold segments: objects one by one, and stuff by class.

An item of such a data set has ``panoptic``, a ``PanopticSource``. ``LoadPanoptic`` reads it,
and ``PackPanopticInputs`` packs it after the transforms.
"""

from .ade20k import ADE20KPanopticDataset
from .cityscapes import CityscapesPanopticDataset
from .coco import CocoInstanceDataset, CocoPanopticDataset
from .transforms import LoadPanoptic, PackPanopticInputs, PadPanoptic

__all__ = [
    'ADE20KPanopticDataset',
    'CityscapesPanopticDataset',
    'CocoInstanceDataset',
    'CocoPanopticDataset',
    'LoadPanoptic',
    'PackPanopticInputs',
    'PadPanoptic',
]
