"""One module per paper; importing it registers what the paper adds."""

from . import fastfcn, hmsa, spnet

__all__ = ['fastfcn', 'hmsa', 'spnet']
