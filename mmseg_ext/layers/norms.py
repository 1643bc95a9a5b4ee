"""What batch norm cannot do."""

from mmengine.dist import get_world_size
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def trains_on_one_value(norm: nn.Module, values: int) -> bool:
    """Whether a norm would learn from a single value a channel, given ``values`` on this process.

    Batch norm cannot. One that is synchronised with other processes has theirs too.
    """
    if values > 1 or not (isinstance(norm, _BatchNorm) and norm.training):
        return False
    return not isinstance(norm, nn.SyncBatchNorm) or get_world_size() == 1
