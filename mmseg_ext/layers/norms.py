"""A batch norm that stays as it is, and checks for batch norms that cannot train."""

from typing import Any

from mmengine.dist import get_world_size
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError


@MODELS.register_module()
class FrozenBN(nn.BatchNorm2d):
    """Batch norm by its running statistics, which it keeps, in training too.

    ``norm_cfg=dict(type='FrozenBN', requires_grad=False)`` freezes its weight and bias too. Its
    names are those of ``BN`` and ``SyncBN``. A training starts from their trained weights.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eval()

    def train(self, mode: bool = True) -> 'FrozenBN':
        """Returns the module, which has no mode of training."""
        return super().train(False)


def trains_on_one_value(norm: nn.Module, values: int) -> bool:
    """Whether a batch norm trains with a single value per channel, for which it raises an error.

    Args:
        norm: Any module; modules other than batch norms give False.
        values: Number of values per channel on this process. A ``SyncBatchNorm`` also uses the
            values of other processes.
    """
    if values > 1 or not (isinstance(norm, _BatchNorm) and norm.training):
        return False
    return not isinstance(norm, nn.SyncBatchNorm) or get_world_size() == 1


def require_several_images(name: str, norm: nn.Module, count: int) -> None:
    """Refuses to train the norm behind a pooling of whole images on a single image.

    Args:
        name: Name of the module that pools, for the message.
        norm: Norm of the pooled images, which have one value per channel.
        count: Number of images in the batch of this process.

    Raises:
        UserError: The norm cannot train on one value per channel.
    """
    if trains_on_one_value(norm, count):
        raise UserError(
            f'{name} pools an image to a single value for each channel, on which batch norm cannot '
            'train: put two or more images into a batch'
        )
