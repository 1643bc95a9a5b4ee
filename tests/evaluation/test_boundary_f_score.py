"""BoundaryFScore against pixels counted by hand, and over images and processes."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmseg.structures import SegDataSample

from mmseg_ext.evaluation.boundary_f_score import (
    BoundaryFScore,
    boundary_f_scores,
    radius_in_pixels,
)
from tests.oracles.gscnn import boundary_f_by_hand
from tests.papers import contrast_processes

CLASSES = ('road', 'car', 'sky')


def labels(seed: int, size: tuple[int, int] = (9, 13)) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 1, 2, 255], size).astype(np.uint8)


def sample(pred: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    pair = dict(pred_sem_seg=pred, gt_sem_seg=label)
    return {name: dict(data=torch.from_numpy(array)[None]) for name, array in pair.items()}


def metric(**kwargs: Any) -> BoundaryFScore:
    built = BoundaryFScore(**kwargs)
    built.dataset_meta = dict(classes=CLASSES)
    return built


def score(*pairs: tuple[np.ndarray, np.ndarray], **kwargs: Any) -> dict[str, float]:
    built = metric(**kwargs)
    built.process({}, [sample(*pair) for pair in pairs])
    return built.evaluate(len(pairs))


@pytest.mark.parametrize('size', [(9, 13), (1, 12), (12, 1), (1, 1)], ids=str)
@pytest.mark.parametrize('seed', range(4))
def test_scores_are_those_counted_by_hand(size: tuple[int, int], seed: int) -> None:
    pred, label = labels(seed, size) % 3, labels(seed + 10, size)
    scores = boundary_f_scores(pred, label, 3, [1, 2, 3])
    for t, radius in enumerate((1, 2, 3)):
        for i in range(3):
            own = [np.where(x == i, 1, np.where(x == 255, 255, 0)) for x in (pred, label)]
            expected = boundary_f_by_hand(*own, radius)
            assert np.nan_to_num(scores[t, i], nan=1.0) == pytest.approx(expected, abs=1e-12)


def test_many_classes_and_radii_in_any_order() -> None:
    pred, label = (labels(seed) % 3 for seed in (1, 2))
    few = boundary_f_scores(pred, label, 3, [1, 2.5])
    many = boundary_f_scores(50 * pred, 50 * label, 101, [2.5, 1])
    np.testing.assert_array_equal(many[::-1, ::50], few)
    assert np.isnan(np.delete(many, [0, 50, 100], axis=1)).all()


def test_wider_radii_forgive_more() -> None:
    label = np.kron(labels(3, (8, 8)) % 3, np.ones((8, 8), np.uint8))
    scores = score((np.roll(label, 2, 1), label), thresholds=(1, 2, 4, 100))
    rows = [scores[f'mBF.{t}'] for t in (1, 2, 4, 100)]
    assert rows == sorted(rows) and rows[0] < 90 < rows[1]
    assert score((label, label))['mBF.3'] == 100.0


def test_the_frame_of_the_image_is_no_border() -> None:
    scores = boundary_f_scores(np.zeros((5, 6), np.uint8), np.zeros((5, 6), np.uint8), 1, [3])
    assert np.isnan(scores).all()


def test_a_class_in_no_image_counts_as_one_or_not_at_all() -> None:
    label = np.array([[0, 0, 1, 1]] * 3, np.uint8)
    wrong = np.array([[0, 0, 0, 0]] * 3, np.uint8)  # no border at all: precision 1, recall 0
    scores = score((label, label), (wrong, label), thresholds=(1,))
    assert scores['mBF.1'] == pytest.approx((50 + 50 + 100) / 3, abs=0.01)
    assert scores['mBF_seen.1'] == 50.0


def test_images_without_labels_score_nan_where_only_the_seen_count() -> None:
    void = np.full((4, 4), 255, np.uint8)
    scores = score((void % 3, void))
    assert scores['mBF.3'] == 100.0 and math.isnan(scores['mBF_seen.3'])


def test_the_released_thresholds_are_other_radii_than_the_papers() -> None:
    released = (0.0005, 0.001875, 0.00375, 0.005)
    assert [radius_in_pixels(t, (1024, 2048)) for t in released] == [2, 5, 9, 12]
    assert radius_in_pixels(0.00088, (1024, 2048)) == 3
    assert radius_in_pixels(12, (1024, 2048)) == 12


def test_memory_does_not_grow_with_the_images() -> None:
    built, sizes = metric(), []
    for seed in range(30):
        built.process({}, [sample(labels(seed), labels(seed + 1))])
        sizes.append(len(pickle.dumps(built.__dict__)))
    assert sizes[-1] <= sizes[1] + 16


def test_a_second_evaluation_starts_afresh() -> None:
    built, pair = metric(), sample(labels(1), labels(2))
    built.process({}, [pair])
    first = built.evaluate(1)
    built.process({}, [pair])
    assert built.evaluate(1) == first


def own_images(rank: int) -> dict[str, torch.Tensor]:
    """What one of two processes scores of five images, of which the second sees one again."""
    built = metric()
    for i in [(rank + 2 * step) % 5 for step in range(3)]:
        built.process({}, [sample(labels(i) % 3, labels(i + 20))])
    return {name: torch.tensor(value) for name, value in built.evaluate(5).items()}


def test_two_processes_score_each_image_once(tmp_path: Path) -> None:
    alone = score(*((labels(i) % 3, labels(i + 20)) for i in range(5)))
    for scores in contrast_processes.run_two(own_images, tmp_path):
        assert {name: value.item() for name, value in scores.items()} == pytest.approx(alone)


def test_it_stands_beside_the_iou() -> None:
    evaluator = Evaluator([dict(type='ClassIoUMetric'), dict(type='BoundaryFScore')])
    evaluator.dataset_meta = dict(classes=CLASSES)
    label = labels(1)
    evaluator.process([SegDataSample(metainfo={}, **_pixel_data(label % 3, label))])
    metrics = evaluator.evaluate(1)
    assert {'mIoU', 'mBF.3', 'mBF.12', 'mBF_seen.5'} <= set(metrics)


def _pixel_data(pred: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    from mmengine.structures import PixelData

    pair = dict(pred_sem_seg=pred, gt_sem_seg=label)
    return {name: PixelData(data=torch.from_numpy(x)[None]) for name, x in pair.items()}


@pytest.mark.parametrize('thresholds', [(), (3, 0), (-1,)], ids=str)
def test_thresholds_that_are_none_are_refused(thresholds: tuple) -> None:
    with pytest.raises(ValueError, match='must be radii, each above 0'):
        BoundaryFScore(thresholds=thresholds)
