"""Networks that papers build on, as the papers released them, where the host's differ."""

from .hrnet import HRNetExact
from .ocr_net_head import OCRNetHead
from .openseg import OpensegASPPHead, OpensegOCRHead, OpensegResNet
from .windows import WindowedEncoderDecoder

__all__ = [
    'HRNetExact',
    'OCRNetHead',
    'OpensegASPPHead',
    'OpensegOCRHead',
    'OpensegResNet',
    'WindowedEncoderDecoder',
]
