"""One module per paper; importing it registers what the paper adds."""

from . import hmsa, spnet

__all__ = ['hmsa', 'spnet']
