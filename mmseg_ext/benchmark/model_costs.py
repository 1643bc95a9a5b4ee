"""What one test image costs a model: time, memory and arithmetic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmseg_ext.benchmark.measuring import interleaved_medians, peak_rise

RUNS, SECONDS = (3, 20), 15.0  # at least 3 timed runs, at most 20, and else for 15 seconds
# What computes nothing, beside views.
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


# What `FlopCounterMode` lacks.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@dataclass(frozen=True)
class Costs:
    """Of one image of ``size`` (h, w), as the network gets it.

    Args:
        size: In pixels.
        parameters: How many numbers the model has, frozen ones too.
        flops: Of convolutions, matrix products and attention; 2 for a multiplication and addition.
        not_counted: The operations whose arithmetic is not in ``flops``.
        seconds: Median of several predictions after two, from the image in memory to the classes.
        peak_bytes: Of the weights and what a prediction adds to them at most; None where the system
            does not tell.
    """

    size: tuple[int, int]
    parameters: int
    flops: int
    not_counted: list[str]
    seconds: float
    peak_bytes: int | None


@torch.no_grad()
def measure_costs(model: nn.Module, batch: dict[str, Any]) -> Costs:
    """Measures the prediction of a batch of one image, in a process that has not predicted yet.

    Args:
        model: With ``test_step``, in evaluation mode.
        batch: What its ``test_step`` takes.
    """
    device = str(next(model.parameters()).device)

    def predict() -> None:
        model.test_step(batch)  # type: ignore[operator]

    if device.startswith('cuda'):  # convolutions choose their algorithms, which takes memory
        predict()
    rise = peak_rise(predict, device)
    start = time.perf_counter()
    flops, not_counted = count_flops(predict)
    repeats = int(SECONDS / max(time.perf_counter() - start, 1e-3))
    (seconds,) = interleaved_medians([predict], device, min(max(repeats, RUNS[0]), RUNS[1]))
    tensors = [*model.parameters(), *model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    image = batch['inputs'][0]
    while isinstance(image, list | tuple):  # a test-time augmentation's
        image = image[0]
    h, w = image.shape[-2:]
    return Costs(
        size=(h, w),
        parameters=sum(p.numel() for p in model.parameters()),
        flops=flops,
        not_counted=not_counted,
        seconds=seconds,
        peak_bytes=None if rise is None else weights + rise,
    )


def count_flops(run: Callable[[], None]) -> tuple[int, list[str]]:
    """Operations of a run as PyTorch's ``FlopCounterMode`` counts them, and the ones it does not.

    Returns:
        the count, and the names of other operations that compute.
    """
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with counter, _Operations() as recorder:
        run()
    uncounted = {op.__name__ for op in recorder.operations if op not in counter.flop_registry}
    return counter.get_total_flops(), sorted(uncounted - MOVES)


class _Operations(TorchDispatchMode):
    """Collects the operations that are not views."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if not func.is_view:
            self.operations.add(func.overloadpacket)
        return func(*args, **kwargs or {})
