"""Batch norm folded into convolutions, for inference."""

import copy
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import UserError


@torch.compiler.disable
def fold_batch_norm(model: nn.Module, run: Callable[[], Any]) -> Any:
    """Folds batch norms into the convolutions before them, in place.

    A norm is folded if the whole result of a convolution goes to it, and nowhere else. This is seen
    in a forward pass, because the order of modules does not tell it. The outputs differ by rounding
    only. A folded model has other weights and cannot train.

    Args:
        model: Model in eval mode, with its trained weights.
        run: Function that runs the model on images as it is going to be used.

    Returns:
        What ``run`` returns.
    """
    flow = _DataFlow(model)
    with torch.no_grad(), flow:
        result = run()
    pairs = flow.pairs()
    for conv, norm in pairs.items():
        _fold(conv, norm)
    folded = {id(norm) for norm in pairs.values()}
    for module in list(model.modules()):
        for name, child in module.named_children():
            if id(child) in folded:
                setattr(module, name, nn.Identity())
    if pairs:
        model.train = _evaluation_only(model)  # type: ignore[method-assign]
    return result


class FoldedCopy:
    """A folded copy of a frozen module for training, which needs the module's own weights.

    It is made anew when the weights change. It belongs to no module, so checkpoints do not have it.
    """

    def __init__(self) -> None:
        self.key: list | None = None
        self.copy: Any = None

    @torch.no_grad()
    def of(self, module: nn.Module, run: Callable[[Any], Any]) -> Any:
        """The folded copy, on a CPU with the channels last.

        Args:
            module: Module in eval mode.
            run: Function that runs a copy of the module.
        """
        tensors = [*module.parameters(), *module.buffers()]
        key = [(x.data_ptr(), x._version) for x in tensors]
        if key != self.key:
            self.key, self.copy = key, copy.deepcopy(module)
            if tensors[0].is_cpu:
                self.copy.to(memory_format=torch.channels_last)
            fold_batch_norm(self.copy, lambda: run(self.copy))
        return self.copy

    def __deepcopy__(self, memo: dict) -> 'FoldedCopy':
        return FoldedCopy()


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: Any) -> None:
    def wide(x: Any) -> Any:
        return x if x is None else x.double()

    statistics = wide(norm.running_mean), wide(norm.running_var), norm.eps
    affine = wide(norm.weight), wide(norm.bias)
    fused = fuse_conv_bn_weights(wide(conv.weight), wide(conv.bias), *statistics, *affine)
    dtype = conv.weight.dtype
    conv.weight, conv.bias = (nn.Parameter(x.to(dtype), requires_grad=False) for x in fused)


class _DataFlow(TorchDispatchMode):
    """Sees which operations use the weights and the results of convolutions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        modules = list(model.modules())
        convs = [m for m in modules if isinstance(m, nn.Conv2d)]
        norms = [m for m in modules if isinstance(m, _BatchNorm) and not m.training]
        owners = Counter(id(conv.weight) for conv in convs)
        self.convs = [conv for conv in convs if owners[id(conv.weight)] == 1]
        self.norms = {id(n.running_mean): n for n in norms if n.running_mean is not None}
        # Tensors by their id, which is another's when the tensor is freed.
        self.weights: dict[int, tuple[Any, nn.Conv2d]] = {
            id(c.weight): (weakref.ref(c.weight), c) for c in self.convs
        }
        self.results: dict[int, tuple[Any, nn.Conv2d]] = {}
        self.users: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)  # None: any other
        self.sources: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        norm = next((self.norms[id(x)] for x in inputs if id(x) in self.norms), None)
        if norm is not None:
            self.sources[norm].add(_find(self.results, inputs[0]))
        for x in inputs:
            if conv := _find(self.results, x):
                self.users[conv].add(norm)
            if conv := _find(self.weights, x):
                self._note_weight(func, conv, result)
        return result

    def _note_weight(self, func: Any, conv: nn.Conv2d, result: Tensor) -> None:
        if func is torch.ops.aten.convolution.default:
            self.results[id(result)] = weakref.ref(result), conv
        elif func is torch.ops.aten._to_copy.default:  # autocast
            self.weights[id(result)] = weakref.ref(result), conv
        else:
            self.users[conv].add(None)

    def pairs(self) -> dict[nn.Conv2d, nn.Module]:
        """Norm of each convolution whose result goes to that norm alone, which has no other."""
        pairs = {}
        for conv in self.convs:
            norm = next(iter(self.users[conv]), None)
            if len(self.users[conv]) == 1 and norm is not None and self.sources[norm] == {conv}:
                pairs[conv] = norm
        return pairs


def _find(tensors: dict[int, tuple[Any, nn.Conv2d]], x: Tensor) -> nn.Conv2d | None:
    reference, conv = tensors.get(id(x), (lambda: None, None))
    return conv if reference() is x else None


def _evaluation_only(model: nn.Module) -> Callable[..., nn.Module]:
    train = model.train

    def refuse(mode: bool = True) -> nn.Module:
        if mode:
            raise UserError(
                'the batch norms of this model are folded for inference, so it cannot train: '
                'load it by mmseg_ext.load(..., fast=False)'
            )
        return train(False)

    return refuse
