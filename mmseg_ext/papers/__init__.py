"""One module per paper; importing it registers what the paper adds."""

from . import hmsa

__all__ = ['hmsa']
