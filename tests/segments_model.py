"""A small model that predicts segments and objects: the connected regions of its classes."""

from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_ext.datasets.panoptic.transforms import boxes_of_masks

THINGS = range(11, 19)  # of Cityscapes

CONFIG = """
_base_ = [
    '{configs}/_base_/datasets/streets_panoptic.py',
    '{configs}/_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmseg_ext', 'tests.segments_model'], allow_failed_imports=False)
train_dataloader = val_dataloader = test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root={root!r}))
model = dict(
    type='SegmentsByRegions',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[50.0] * 3,
                           size={size}, pad_val=0, seg_pad_val=255, bgr_to_rgb=True),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=dict(type='BN')),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=19),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
"""


@MODELS.register_module(force=True)
class SegmentsByRegions(EncoderDecoder):
    """Adds one segment for each class of stuff and each region of a thing, with its mean logit."""

    def predict(self, inputs: Any, data_samples: Any = None) -> list[SegDataSample]:
        samples = super().predict(inputs, data_samples)
        for sample in samples:
            _add_segments(sample)
        return samples


def _add_segments(sample: SegDataSample) -> None:
    label = sample.pred_sem_seg.data[0].cpu().numpy()
    ids, segments = np.zeros(label.shape, np.int32), []
    for category in np.unique(label).tolist():
        mask = (label == category).astype(np.uint8)
        thing = category in THINGS
        regions = cv2.connectedComponents(mask)[1] if thing else mask
        for region in range(1, regions.max() + 1):
            ids[regions == region] = len(segments) + 1
            score = 1 / (1 + len(segments))
            segments.append(
                dict(id=len(segments) + 1, category_id=category, isthing=thing, score=score)
            )
    things = [item for item in segments if item['isthing']]
    stacked = np.array([ids == item['id'] for item in things], bool).reshape(-1, *ids.shape)
    masks = torch.from_numpy(stacked)
    sample.pred_panoptic_seg = PixelData(
        panoptic_seg=torch.from_numpy(ids)[None], metainfo=dict(segments_info=segments)
    )
    sample.pred_instances = InstanceData(
        masks=masks,
        labels=torch.tensor([item['category_id'] for item in things], dtype=torch.long),
        scores=torch.tensor([item['score'] for item in things]),
        bboxes=boxes_of_masks(masks),
    )
