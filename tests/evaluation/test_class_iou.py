"""ClassIoUMetric against the host's numbers."""

import math
from typing import Any

import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmseg_ext.evaluation.class_iou import ClassIoUMetric, markdown_table

CLASSES = ('road', 'car', 'sky')


def scores(kind: type[IoUMetric], **kwargs: Any) -> dict[str, float]:
    metric = kind(iou_metrics=['mIoU'], **kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    truth = torch.tensor([[0, 0, 1, 255], [0, 1, 1, 0]])
    seen = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
    sample = dict(pred_sem_seg=dict(data=seen[None]), gt_sem_seg=dict(data=truth[None]))
    metric.process({}, [sample])
    return metric.evaluate(1)


def test_means_are_the_hosts_and_classes_are_by_hand() -> None:
    ours, host = scores(ClassIoUMetric), scores(IoUMetric)
    assert {name: ours[name] for name in host} == host
    assert ours['IoU.road'] == 60.0 and ours['IoU.car'] == 50.0
    assert math.isnan(ours['IoU.sky'])


def test_unscored_classes_count_against_others_and_not_in_the_mean() -> None:
    ours = scores(ClassIoUMetric, unscored=('road', 'sky'))
    assert ours['mIoU'] == ours['IoU.car'] == 50.0 and ours['IoU.road'] == 60.0
    with pytest.raises(ValueError, match=r"unscored names \['roof'\], .* are road, car, sky"):
        scores(ClassIoUMetric, unscored=('roof',))


def test_table_lists_classes_before_means() -> None:
    lines = markdown_table({'mIoU': 55.0, 'IoU.road': 60.0}).splitlines()
    assert lines[2:] == ['| road | 60.00 |', '| mIoU | 55.00 |']
