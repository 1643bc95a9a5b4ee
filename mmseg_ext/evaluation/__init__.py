"""Metrics and test-time augmentation; importing this package registers them."""

from . import (  # noqa: F401
    background,
    boundary_f_score,
    class_iou,
    encoding_tta,
    instance_ap,
    logit_tta,
    panoptic_quality,
    saved_predictions,
    server_files,
)
