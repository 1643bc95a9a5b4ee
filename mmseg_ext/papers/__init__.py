"""One module per paper; importing it registers what the paper adds."""

from . import cpnet, fastfcn, hmsa, spnet

__all__ = ['cpnet', 'fastfcn', 'hmsa', 'spnet']
