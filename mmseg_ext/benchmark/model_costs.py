"""Costs of the prediction of one image: time, memory and arithmetic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmseg_ext.benchmark.measuring import interleaved_medians, peak_rise
from mmseg_ext.layers.unwrapping import unwrap
from mmseg_ext.segmentors.fast import make_fast

RUNS, SECONDS = (3, 20), 15.0  # timed runs for 15 seconds, but at least 3 and at most 20
# Operations, other than views, that compute nothing.
MOVES = {
    '_to_copy',
    '_unsafe_view',
    'cat',
    'clone',
    'copy_',
    'detach',
    'empty',
    'empty_like',
    'fill_',
    'full',
    'index',
    'index_put_',
    'lift_fresh',
    'new_empty',
    'new_zeros',
    'promote_types',
    'stack',
    'zeros',
    'zeros_like',
}


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# Operations that ``FlopCounterMode`` does not know.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@dataclass(frozen=True)
class Costs:
    """Costs of the prediction of one image.

    Args:
        size: Size (h, w) of the network's input in pixels.
        parameters: Number of parameters that a prediction reads, frozen parameters included. Parts
            that only training has, such as auxiliary heads, do not count.
        flops: Operations of convolutions, matrix products and attention; a multiplication with
            addition counts 2.
        not_counted: Names of the operations that are not in ``flops``.
        seconds: Median time of a prediction after warm-up runs, from the image in memory to the
            classes, of the model as ``make_fast`` leaves it; all others are of the model as built.
        peak_bytes: Size of the weights that a prediction reads plus the largest memory of a
            prediction; None if the system cannot measure it.
    """

    size: tuple[int, int]
    parameters: int
    flops: int
    not_counted: list[str]
    seconds: float
    peak_bytes: int | None


@torch.no_grad()
def measure_costs(model: nn.Module, batch: dict[str, Any]) -> Costs:
    """Measures the prediction of a batch of one image; call it before any other prediction.

    Args:
        model: Model with ``test_step``, in eval mode.
        batch: Argument of ``test_step``.
    """
    device = str(next(model.parameters()).device)

    def predict() -> None:
        model.test_step(batch)  # type: ignore[operator]

    if device.startswith(
        'cuda'
    ):  # the first run chooses algorithms of convolutions, which needs memory
        predict()
    rise = peak_rise(predict, device)
    trace = trace_operations(predict)
    tensors = [x for x in (*model.parameters(), *model.buffers()) if trace.reads(x)]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    parameters = sum(p.numel() for p in model.parameters() if trace.reads(p))
    make_fast(unwrap(model))
    predict()
    start = time.perf_counter()
    predict()
    repeats = int(SECONDS / max(time.perf_counter() - start, 1e-3))
    (seconds,) = interleaved_medians([predict], device, min(max(repeats, RUNS[0]), RUNS[1]))
    image = batch['inputs'][0]
    while isinstance(image, list | tuple):  # test-time augmentation nests images
        image = image[0]
    h, w = image.shape[-2:]
    return Costs(
        size=(h, w),
        parameters=parameters,
        flops=trace.flops,
        not_counted=trace.not_counted,
        seconds=seconds,
        peak_bytes=None if rise is None else weights + rise,
    )


@dataclass(frozen=True)
class Trace:
    """Operations of a run.

    Args:
        flops: Operations that PyTorch's ``FlopCounterMode`` counts.
        not_counted: Names of operations that compute but are not in ``flops``.
        storages: Addresses of the memory of all tensors that an operation took.
    """

    flops: int
    not_counted: list[str]
    storages: set[int]

    def reads(self, tensor: Tensor) -> bool:
        """Whether an operation of the run took the tensor or a view of it."""
        return tensor.untyped_storage().data_ptr() in self.storages


def trace_operations(run: Callable[[], Any]) -> Trace:
    """Records the operations of a run."""
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with counter, _Operations() as recorder:
        run()
    uncounted = {op.__name__ for op in recorder.operations if op not in counter.flop_registry}
    return Trace(counter.get_total_flops(), sorted(uncounted - MOVES), recorder.storages)


class _Operations(TorchDispatchMode):
    """Collects the operations that are not views, and the memory that operations take."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if not func.is_view:
            self.operations.add(func.overloadpacket)
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(value.untyped_storage().data_ptr())
        return func(*args, **kwargs or {})
