"""Predictions on disk with their scores; a report chooses its pictures from them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from PIL import Image
from torch import Tensor

from .class_iou import count_pairs

LIST = 'images.csv'


@METRICS.register_module()
class SavedPredictions(BaseMetric):
    """Writes the prediction and the label of every image, and a list of images with scores.

    The files ``000000.png`` and so on, in the order of the data set, hold the predicted classes as
    grey values and the label as alpha. A line of ``images.csv`` holds the path of an image and the
    mean IoU, in per cent, of the classes in its label or prediction (empty without such classes).

    It works on one process only.

    Args:
        folder: Existing output folder.
        ignore_index: Label without a class.
    """

    def __init__(self, folder: str, ignore_index: int = 255) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.ignore_index = ignore_index
        self._images = 0
        (self.folder / LIST).write_text('')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Writes samples with ``pred_sem_seg`` and ``gt_sem_seg``, each (1, H, W)."""
        for sample in data_samples:
            pred, label = (sample[key]['data'][0] for key in ('pred_sem_seg', 'gt_sem_seg'))
            pair = np.stack([x.cpu().numpy().astype(np.uint8) for x in (pred, label)], -1)
            path = self.folder / f'{self._images:06d}.png'
            Image.fromarray(pair, 'LA').save(path, compress_level=1)
            with (self.folder / LIST).open('a', newline='') as file:
                csv.writer(file).writerow([sample['img_path'], self._score(pred, label)])
            self._images += 1

    def _score(self, pred: Tensor, label: Tensor) -> str:
        classes = len(self.dataset_meta['classes'])
        counts = count_pairs(pred, label.to(pred), classes, self.ignore_index)
        intersection = counts.diagonal()[:-1]
        union = (counts.sum(0) + counts.sum(1))[:-1] - intersection
        iou = (intersection / union)[union > 0]
        return f'{100 * iou.mean().item():.2f}' if len(iou) else ''

    def evaluate(self, size: int) -> dict:
        """Returns no scores; the results are in the folder."""
        return {}

    def compute_metrics(self, results: list) -> dict:
        return {}
