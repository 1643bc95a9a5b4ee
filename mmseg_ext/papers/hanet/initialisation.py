"""Initial weights of the released networks."""

from mmengine.model import BaseModule, kaiming_init
from torch import nn


class ReleasedInit(BaseModule):
    """Kaiming's normal distribution for every convolution, by its inputs, and no bias."""

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module, mode='fan_in')
