"""Metrics, test-time augmentation, tables and reports."""

from . import class_iou, encoding_tta, logit_tta  # noqa: F401
