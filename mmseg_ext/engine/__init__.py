"""Hooks, wrappers and windows: what a Runner needs."""

from . import picture_hooks  # noqa: F401
