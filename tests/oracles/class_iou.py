"""The host's areas of classes, three histograms of an image, to measure the one count against."""

from collections.abc import Sequence

import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.evaluation.class_iou import count_pairs

SIZE, CLASSES, VOID = (1024, 2048), 19, 255


def _make(device: torch.device) -> tuple[Run, Run]:
    blocks = torch.randint(CLASSES, (2, 1, 16, 32), device=device)
    pred, label = blocks.repeat_interleave(64, 2).repeat_interleave(64, 3).squeeze(1)
    label[-100:] = VOID

    def ours() -> Sequence[Tensor]:
        counts = count_pairs(pred, label, CLASSES, VOID)
        return counts.diagonal()[:-1].cpu(), counts.sum(0)[:-1].cpu(), counts.sum(1)[:-1].cpu()

    def host() -> Sequence[Tensor]:
        areas = IoUMetric.intersect_and_union(pred, label, CLASSES, VOID)
        return areas[0], areas[2], areas[3]

    return ours, host


BENCHMARKS = [OpBenchmark('class_iou', '1024x2048, 19 classes', _make)]
