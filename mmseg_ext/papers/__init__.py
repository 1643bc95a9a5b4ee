"""One module per paper; importing it registers what the paper adds."""

from . import cpnet, danet, fastfcn, hanet, hmsa, pixel_contrast, spnet

__all__ = ['cpnet', 'danet', 'fastfcn', 'hanet', 'hmsa', 'pixel_contrast', 'spnet']
