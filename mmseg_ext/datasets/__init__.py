"""Data sets, samplers and transforms; importing it registers them."""

from ..host import find_loaders_by_class
from .aerial import DeepGlobeDataset, InriaDataset, LoadColorSegMap
from .camvid import CamVidDataset
from .cityscapes import CityscapesIdsDataset, Mapillary65Dataset
from .class_uniform import ClassCentroidDataset, ClassUniformSampler
from .folder import FolderDataset
from .panoptic import (
    ADE20KPanopticDataset,
    CityscapesPanopticDataset,
    CocoInstanceDataset,
    CocoPanopticDataset,
    LoadPanoptic,
    PackPanopticInputs,
    PadPanoptic,
)
from .pseudo_label import LoadPseudoLabels, PseudoLabelDataset
from .transforms import (
    ColorJitter,
    LoadImage,
    LoadSegMap,
    RandomGaussianBlur,
    RandomScaleCrop,
    SetOriginalSize,
    ShiftBrightness,
)

__all__ = [
    'ADE20KPanopticDataset',
    'CamVidDataset',
    'CityscapesIdsDataset',
    'CityscapesPanopticDataset',
    'ClassCentroidDataset',
    'ClassUniformSampler',
    'CocoInstanceDataset',
    'CocoPanopticDataset',
    'ColorJitter',
    'DeepGlobeDataset',
    'FolderDataset',
    'InriaDataset',
    'LoadColorSegMap',
    'LoadImage',
    'LoadPanoptic',
    'LoadPseudoLabels',
    'LoadSegMap',
    'Mapillary65Dataset',
    'PackPanopticInputs',
    'PadPanoptic',
    'PseudoLabelDataset',
    'RandomGaussianBlur',
    'RandomScaleCrop',
    'SetOriginalSize',
    'ShiftBrightness',
]

find_loaders_by_class()
