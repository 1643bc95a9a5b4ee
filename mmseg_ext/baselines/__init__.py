"""Networks that papers build on, in their released form, where it differs from the host's."""

from .convnext import ConvNeXt
from .dense_deeplab import ASPPNeck, DenseDeepLabHead
from .efficientnet_lite import EfficientNetLite, EfficientNetLiteClassifier
from .espnetv2 import ESPNetV2, ESPNetV2Head
from .hrnet import HRNetExact
from .magnet import MagNetFPNHead, MagNetOCRHead
from .mobilenet_v2 import FullMobileNetV2
from .ocr_net_head import OCRNetHead
from .openseg import OpensegASPPHead, OpensegOCRHead, OpensegResNet
from .pp_liteseg import PPLiteSegHead
from .wider_resnet import StemResNet, WiderResNetA2

__all__ = [
    'ASPPNeck',
    'ConvNeXt',
    'DenseDeepLabHead',
    'EfficientNetLite',
    'EfficientNetLiteClassifier',
    'ESPNetV2',
    'ESPNetV2Head',
    'FullMobileNetV2',
    'HRNetExact',
    'MagNetFPNHead',
    'MagNetOCRHead',
    'OCRNetHead',
    'OpensegASPPHead',
    'OpensegOCRHead',
    'OpensegResNet',
    'PPLiteSegHead',
    'StemResNet',
    'WiderResNetA2',
]
