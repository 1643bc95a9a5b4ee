"""Segmentation papers as MMSegmentation 1.x configs."""

from .host import prepare_host

__version__ = '0.1.0'

prepare_host()
