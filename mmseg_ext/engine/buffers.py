"""The buffers of a model as they were before a training step."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from ..segmentors.protocols import UndoesWrites


class Buffers:
    """The buffers of a model as they were before a step: a forward pass changes them.

    They are copied, except for those of modules that undo their own writes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.undoing = [m for m in model.modules() if isinstance(m, UndoesWrites)]
        undone = {id(buffer) for module in self.undoing for buffer in module.buffers()}
        by_type: dict[tuple, list[Tensor]] = defaultdict(list)
        for buffer in model.buffers():
            if id(buffer) not in undone:
                by_type[buffer.dtype, buffer.device].append(buffer)
        self.pairs = [(group, [torch.empty_like(b) for b in group]) for group in by_type.values()]

    @torch.no_grad()
    def remember(self) -> None:
        for live, copies in self.pairs:
            torch._foreach_copy_(copies, live)
        for module in self.undoing:
            module.record_writes()

    @torch.no_grad()
    def restore(self) -> None:
        for live, copies in self.pairs:
            torch._foreach_copy_(live, copies)
        for module in self.undoing:
            module.undo_writes()
