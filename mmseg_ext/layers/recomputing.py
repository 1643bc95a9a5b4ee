"""Less memory in training: a module runs again in the backward pass."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class CopiedStatistics:
    """Context in which batch norms of a module update copies of their statistics, then discarded.

    It can be entered repeatedly, as a graph that is kept runs backward repeatedly.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
        self.statistics = [norm._buffers for norm in self.norms]

    def __enter__(self) -> None:
        for norm, buffers in zip(self.norms, self.statistics, strict=True):
            norm._buffers = {name: x if x is None else x.clone() for name, x in buffers.items()}

    def __exit__(self, *_: object) -> None:
        for norm, buffers in zip(self.norms, self.statistics, strict=True):
            norm._buffers = buffers


def run_twice(module: nn.Module, x: Tensor) -> Tensor:
    """Output of a module that runs again in the backward pass; only the first run is counted.

    The second run updates no statistics of batch norms. A ``SyncBN`` communicates in both.
    """
    if torch.compiler.is_compiling():  # a compiled graph updates its buffers once
        return checkpoint(module, x, use_reentrant=False)
    contexts = nullcontext(), CopiedStatistics(module)
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: contexts)
