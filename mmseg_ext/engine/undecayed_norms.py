"""Weight decay of transformers: none for norms and embeddings, at any learning rate."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

UNDECAYED = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.Embedding)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class UndecayedNormsConstructor(DefaultOptimWrapperConstructor):
    """The host's constructor without weight decay for norms and embeddings.

    In the host, ``norm_decay_mult`` does not apply to a norm whose name has a key of
    ``custom_keys``, such as the norms of a backbone with its own learning rate.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: Any = None
    ) -> None:
        """Adds groups of the parameters of a module, as the host's method."""
        start = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        if isinstance(module, UNDECAYED):
            for group in params[start:]:  # these modules have no children
                group['weight_decay'] = 0.0
