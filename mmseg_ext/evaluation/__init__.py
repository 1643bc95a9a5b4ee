"""Metrics, test-time augmentation, tables and reports."""

from . import boundary_f_score, class_iou, encoding_tta, logit_tta  # noqa: F401
