"""Metrics, test-time augmentation, tables and reports."""

from . import (  # noqa: F401
    background,
    boundary_f_score,
    class_iou,
    encoding_tta,
    logit_tta,
    saved_predictions,
)
