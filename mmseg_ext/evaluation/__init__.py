"""Metrics, test-time augmentation, tables and reports."""

from . import class_iou, logit_tta  # noqa: F401
