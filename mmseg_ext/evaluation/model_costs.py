"""What one test image costs a model: time, memory and arithmetic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .op_benchmark import peak_bytes_of, synchronize

WARM_UPS, RUNS, SECONDS = 2, (3, 20), 15.0  # at least 3 runs, then until 20 or 15 seconds
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


@dataclass(frozen=True)
class Costs:
    """Of one image of ``size`` (h, w), as the network gets it.

    Args:
        size: in pixels.
        parameters: how many numbers the model learns.
        flops: of convolutions, matrix products and attention; 2 for a multiplication and addition.
        not_counted: the operations whose arithmetic is not in ``flops``.
        seconds: median of several predictions, from the image in memory to the classes in memory.
        peak_bytes: of the weights and what a prediction adds to them; None where the system does
            not tell.
    """

    size: tuple[int, int]
    parameters: int
    flops: int
    not_counted: list[str]
    seconds: float
    peak_bytes: int | None


@torch.no_grad()
def measure_costs(model: nn.Module, batch: dict[str, Any], before: int | None) -> Costs:
    """Measures the prediction of a batch of one image.

    Args:
        model: with ``test_step``, in evaluation mode.
        batch: what its ``test_step`` takes.
        before: resident bytes of this process before it had the model, on a CPU.
    """
    device = next(model.parameters()).device

    def predict() -> None:
        model.test_step(batch)  # type: ignore[operator]
        synchronize(device)

    if device.type == 'cuda':  # convolutions choose their algorithms, which takes memory
        predict()
    peak = peak_bytes_of(predict, device, 0 if device.type == 'cuda' else before)
    flops, not_counted = count_flops(predict)
    image = batch['inputs'][0]
    while isinstance(image, list | tuple):  # a test-time augmentation's
        image = image[0]
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds = _median_time(predict)
    h, w = image.shape[-2:]
    return Costs((h, w), parameters, flops, not_counted, seconds, peak)


def _median_time(run: Callable[[], None]) -> float:
    for _ in range(WARM_UPS):
        run()
    times: list[float] = []
    while len(times) < RUNS[0] or (len(times) < RUNS[1] and sum(times) < SECONDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def count_flops(run: Callable[[], None]) -> tuple[int, list[str]]:
    """Operations of a run as PyTorch's ``FlopCounterMode`` counts them, and the ones it does not.

    Returns:
        the count, and the names of other operations that compute.
    """
    with FlopCounterMode(display=False) as counter, _Operations() as seen:
        run()
    others = {op.__name__ for op in seen.operations if op not in counter.flop_registry}
    return counter.get_total_flops(), sorted(others - MOVES)


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
