"""Settings of training and inference, from ``train_cfg`` and ``test_cfg``."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from ...errors import UserError


class Training(NamedTuple):
    """Settings of training; the defaults are the released ones.

    Args:
        proposals_per_level: Number of proposals of a level before suppression.
        proposals_per_image: Number of proposals of an image after suppression.
        proposal_iou: IoU above which the proposal with the lower score is suppressed.
        anchors_per_image: Number of anchors with a loss in an image.
        anchor_positive: Least IoU of an anchor with an object to be positive.
        anchor_negative: IoU with all objects below which an anchor is negative.
        rois_per_image: Number of regions with a loss in an image.
        foreground_fraction: Largest fraction of these with an object.
        foreground_iou: Least IoU of such a region with its object.
        rpn_beta: Difference at which the smooth L1 loss of the proposals becomes linear.
        box_beta: Difference at which that of the box head becomes linear.
    """

    proposals_per_level: int = 2000
    proposals_per_image: int = 2000
    proposal_iou: float = 0.7
    anchors_per_image: int = 256
    anchor_positive: float = 0.7
    anchor_negative: float = 0.3
    rois_per_image: int = 512
    foreground_fraction: float = 0.25
    foreground_iou: float = 0.5
    rpn_beta: float = 1 / 9
    box_beta: float = 1 / 3


class Inference(NamedTuple):
    """Settings of inference; the defaults are the released ones.

    Args:
        proposals_per_level: Number of proposals of a level before suppression.
        proposals_per_image: Number of proposals of an image after suppression.
        proposal_iou: IoU above which the proposal with the lower score is suppressed.
        score_threshold: Least score of an instance.
        iou_threshold: IoU above which the instance of its class with the lower score is suppressed.
        max_instances: Largest number of instances of an image.
        mask_threshold: Least probability of a pixel in a mask.
    """

    proposals_per_level: int = 1000
    proposals_per_image: int = 1000
    proposal_iou: float = 0.7
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    max_instances: int = 100
    mask_threshold: float = 0.5


Settings = TypeVar('Settings', Training, Inference)
OTHERS = frozenset({'mode', 'crop_size', 'stride', 'windows_per_batch', 'full_height'})


def read_settings(kind: type[Settings], cfg: Mapping[str, Any] | None, name: str) -> Settings:
    """Settings of a config.

    Args:
        kind: Class of the settings.
        cfg: ``train_cfg`` or ``test_cfg``; keys of sliding windows are omitted.
        name: Its name, for errors.

    Raises:
        UserError: A key is unknown, or a number is not positive.
    """
    values = {key: value for key, value in (cfg or {}).items() if key not in OTHERS}
    if unknown := [key for key in values if key not in kind._fields]:
        raise UserError(
            f'{name} has the unknown key {unknown[0]!r}: choose from {", ".join(kind._fields)}'
        )
    for key, value in values.items():
        if not isinstance(value, int | float) or value < 0 or (value == 0 and is_count(key)):
            raise UserError(f'{name}.{key}={value!r} must be a positive number')
    return kind(**values)


def is_count(key: str) -> bool:
    """Whether a setting is a number of things."""
    return key.endswith(('_level', '_image', '_instances'))
