"""Metrics, test-time augmentation, tables and reports."""

from . import logit_tta  # noqa: F401
