import threading
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_ext.evaluation.background import WAITING, BackgroundEvaluator
from mmseg_ext.evaluation.class_iou import ClassIoUMetric

CLASSES = ('road', 'car')


def sample(seed: int) -> SegDataSample:
    generator = torch.Generator().manual_seed(seed)
    pair = {
        name: PixelData(data=torch.randint(2, (1, 8, 9), generator=generator))
        for name in ('pred_sem_seg', 'gt_sem_seg')
    }
    return SegDataSample(metainfo={}, **pair)


def score(evaluator: Evaluator) -> dict[str, float]:
    evaluator.dataset_meta = dict(classes=CLASSES)
    for seed in range(9):
        evaluator.process([sample(seed)])
    return evaluator.evaluate(9)


def test_scores_are_those_of_the_host() -> None:
    assert score(BackgroundEvaluator([ClassIoUMetric()])) == score(Evaluator([ClassIoUMetric()]))


class Slow(BaseMetric):
    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def process(self, data_batch: Any, data_samples: Any) -> None:
        assert self.go_on.wait(20)
        self.results.append(data_batch)

    def compute_metrics(self, results: list) -> dict[str, Any]:
        return dict(order=results)


def test_the_test_goes_on_while_a_metric_counts_and_batches_keep_their_order() -> None:
    slow = Slow()
    evaluator = BackgroundEvaluator([slow])
    for i in range(WAITING + 1):
        evaluator.process([], i)
    assert not slow.results  # and yet the batches were taken
    slow.go_on.set()
    assert evaluator.evaluate(WAITING + 1) == dict(order=list(range(WAITING + 1)))


def test_no_more_than_a_few_batches_wait() -> None:
    slow = Slow()
    evaluator = BackgroundEvaluator([slow])
    for i in range(WAITING + 1):
        evaluator.process([], i)
    threading.Timer(0.2, slow.go_on.set).start()
    evaluator.process([], -1)
    assert slow.results[0] == 0


class Broken(Slow):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        raise ValueError('no label')


def test_what_a_metric_raises_ends_the_test() -> None:
    evaluator = BackgroundEvaluator([Broken()])
    evaluator.process([], 0)
    with pytest.raises(ValueError, match='no label'):
        evaluator.evaluate(1)
