"""A check for batch norms that cannot train."""

from mmengine.dist import get_world_size
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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
