"""An evaluator that computes metrics while the model predicts."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmengine.evaluator import Evaluator
from mmseg.registry import EVALUATOR

WAITING = 2  # batches; each holds the logits of its images


@EVALUATOR.register_module()
class BackgroundEvaluator(Evaluator):
    """The host's ``Evaluator`` in a separate thread: the model predicts while metrics are computed.

    The metrics get batches one by one and in order. An error of a metric ends the test a few
    batches later.
    """

    def __init__(self, metrics: Any) -> None:
        super().__init__(metrics)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='metrics')
        self._pending: deque[Future] = deque()

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """Queues a batch for the metrics; if two batches are waiting, it waits for the first."""
        self._wait(WAITING)
        self._pending.append(self._thread.submit(super().process, data_samples, data_batch))

    def evaluate(self, size: int) -> dict:
        """Waits for the last batch, then evaluates as the host does."""
        self._wait(0)
        return super().evaluate(size)

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()
