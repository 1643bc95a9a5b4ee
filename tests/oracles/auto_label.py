"""Auto-labelling by the obvious formulas, in label ids, and the released form of writing."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.inference.auto_label import label_and_probability


def label_and_probability_released(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Class and floor(255 p), uint8 (H, W), of logits (K, H, W), on the CPU with all softmaxes."""
    prob, label = logits.float().softmax(0).cpu().max(0)
    return label.to(torch.uint8), (255 * prob).floor().to(torch.uint8)


def read_pixel_by_pixel(
    label: np.ndarray,
    prob: np.ndarray,
    human: np.ndarray,
    label_ids: Sequence[int],
    *,
    threshold: float,
    merge: Sequence[int] = (),
) -> np.ndarray:
    """Train ids of a label of ids, united with human ids for the train ids of `merge`."""
    merged = label.copy()
    for i in sorted(label_ids[c] for c in merge):
        if i in merged:
            for place in np.ndindex(label.shape):
                if human[place] == i:
                    merged[place] = i
    result = np.full_like(label, 255)
    for place in np.ndindex(label.shape):
        if merged[place] in label_ids and prob[place] / 255 >= threshold:
            result[place] = label_ids.index(merged[place])
    return result


def _make(device: torch.device) -> tuple[Run, Run]:
    """Probabilities alone: ours takes the class from the prediction, which the host has made."""
    logits = 4 * torch.randn(19, 1024, 2048, device=device)
    label = PixelData(data=logits.argmax(0, keepdim=True))
    sample = SegDataSample(pred_sem_seg=label, seg_logits=PixelData(data=logits))
    return (
        lambda: [label_and_probability(sample)[1].cpu()],
        lambda: [label_and_probability_released(logits)[1]],
    )


BENCHMARKS = [OpBenchmark('auto_label', '19x1024x2048', _make)]
