"""The parent of every model, its batches and sliding windows, and what parts may offer."""

from .preprocessor import CheckedDataPreProcessor
from .windowed import WindowedEncoderDecoder

__all__ = ['CheckedDataPreProcessor', 'WindowedEncoderDecoder']
