"""A batch norm that stays as it is, and checks for batch norms that cannot train."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import get_world_size
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook

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


@contextmanager
def single_values_refused(model: nn.Module, count: int) -> Iterator[None]:
    """Refuses batch norms that train on one value per channel, in the forward passes of a block.

    Args:
        model: Model that runs, for the name of the norm.
        count: Number of images in the batch of this process; only a single one is checked.

    Raises:
        UserError: A norm gets a single value.
    """

    def check(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(norm, _BatchNorm) and trains_on_one_value(norm, inputs[0][:, 0].numel()):
            name = next(
                (name for name, module in model.named_modules() if module is norm), 'a norm'
            )
            raise UserError(
                f'{name} gets a single value for each channel, on which batch norm cannot train: '
                'put two or more images into a batch, or take larger crops'
            )

    if count > 1:
        yield
        return
    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
