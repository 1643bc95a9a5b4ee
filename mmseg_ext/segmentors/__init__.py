"""The parent of every model, its sliding windows, and what parts of a model may offer."""

from ..host import call_after_building_heads
from .pairs import check_needed_segmentor
from .windowed import WindowedEncoderDecoder

__all__ = ['WindowedEncoderDecoder']

call_after_building_heads(check_needed_segmentor)
