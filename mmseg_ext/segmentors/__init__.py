"""The parent of every model, its sliding windows, and what parts of a model may offer."""

from .windowed import WindowedEncoderDecoder

__all__ = ['WindowedEncoderDecoder']
