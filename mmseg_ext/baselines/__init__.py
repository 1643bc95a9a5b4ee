"""Networks that papers build on, as the papers released them, where the host's differ."""

from .dense_deeplab import ASPPNeck, DenseDeepLabHead
from .espnetv2 import ESPNetV2, ESPNetV2Head
from .hrnet import HRNetExact
from .ocr_net_head import OCRNetHead
from .openseg import OpensegASPPHead, OpensegOCRHead, OpensegResNet
from .windows import WindowedEncoderDecoder

__all__ = [
    'ASPPNeck',
    'DenseDeepLabHead',
    'ESPNetV2',
    'ESPNetV2Head',
    'HRNetExact',
    'OCRNetHead',
    'OpensegASPPHead',
    'OpensegOCRHead',
    'OpensegResNet',
    'WindowedEncoderDecoder',
]
