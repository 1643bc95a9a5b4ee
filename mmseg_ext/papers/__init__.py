"""One module per paper; importing it registers what the paper adds."""

from . import cpnet, fastfcn, hanet, hmsa, pixel_contrast, spnet

__all__ = ['cpnet', 'fastfcn', 'hanet', 'hmsa', 'pixel_contrast', 'spnet']
