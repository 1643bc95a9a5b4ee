"""ClassIoUMetric against the host's numbers."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmseg_ext.evaluation.class_iou import ClassIoUMetric, count_pairs, markdown_table
from tests.papers import contrast_processes

CLASSES = ('road', 'car', 'sky')


def scores(kind: type[IoUMetric], **kwargs: Any) -> dict[str, float]:
    metric = kind(iou_metrics=['mIoU'], **kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    truth = torch.tensor([[0, 0, 1, 255], [0, 1, 1, 0]])
    seen = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
    sample = dict(pred_sem_seg=dict(data=seen[None]), gt_sem_seg=dict(data=truth[None]))
    metric.process({}, [sample])
    return metric.evaluate(1)


def test_means_are_the_hosts_and_classes_are_by_hand() -> None:
    ours, host = scores(ClassIoUMetric), scores(IoUMetric)
    assert {name: ours[name] for name in host} == host
    assert ours['IoU.road'] == 60.0 and ours['IoU.car'] == 50.0
    assert math.isnan(ours['IoU.sky'])


def test_unscored_classes_count_against_others_and_not_in_the_mean() -> None:
    ours = scores(ClassIoUMetric, unscored=('road', 'sky'))
    assert ours['mIoU'] == ours['IoU.car'] == 50.0 and ours['IoU.road'] == 60.0
    with pytest.raises(ValueError, match=r"unscored names \['roof'\], .* are road, car, sky"):
        scores(ClassIoUMetric, unscored=('roof',))


def band_scores(images: list[dict], **kwargs: Any) -> dict[str, float]:
    metric = ClassIoUMetric(iou_metrics=['mIoU'], **kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in images:
        metric.process({}, [sample])
    return metric.evaluate(len(images))


def rows_of(sample: dict, band: int, bands: int) -> dict:
    height = sample['gt_sem_seg']['data'].shape[1]
    rows = slice(height * band // bands, height * (band + 1) // bands)
    return {key: dict(data=value['data'][:, rows]) for key, value in sample.items()}


def test_quarters_have_the_scores_of_images_of_their_rows_alone() -> None:
    images = [image(seed, 3, top=3) for seed in range(3)]  # 31 rows: quarters of 7 or 8 rows
    plain, quarters = band_scores(images), band_scores(images, row_bands=4)
    names = [f'mIoU.rows_{top}_{top + 25}' for top in (0, 25, 50, 75)]
    assert [name for name in quarters if name not in plain] == names
    assert {name: quarters[name] for name in plain} == plain
    for band, name in enumerate(names):
        alone = band_scores([rows_of(sample, band, 4) for sample in images])
        assert quarters[name] == alone['mIoU']
    assert len({quarters[name] for name in names}) == 4


def test_a_band_averages_over_the_classes_that_occur_in_it() -> None:
    truth = torch.tensor([[2, 2], [0, 1]])
    seen = torch.tensor([[2, 2], [0, 0]])
    sample = dict(pred_sem_seg=dict(data=seen[None]), gt_sem_seg=dict(data=truth[None]))
    halves = band_scores([sample], row_bands=2)
    assert halves['mIoU.rows_0_50'] == 100.0 and halves['mIoU.rows_50_100'] == 25.0
    road = band_scores([sample], row_bands=2, unscored=('car', 'sky'))
    assert math.isnan(road['mIoU.rows_0_50']) and road['mIoU.rows_50_100'] == 50.0


def test_an_image_of_fewer_rows_than_bands_leaves_bands_empty() -> None:
    sample = rows_of(image(0, 3, top=3), 5, 15)
    assert sample['gt_sem_seg']['data'].shape[1] == 2
    scores = band_scores([sample], row_bands=4)
    values = [scores[name] for name in scores if name.startswith('mIoU.rows')]
    assert [math.isnan(value) for value in values] == [True, False, True, False]


def test_no_band_is_refused() -> None:
    with pytest.raises(ValueError, match='row_bands=0 must be 1 or more'):
        ClassIoUMetric(row_bands=0)


def test_table_lists_classes_before_means() -> None:
    lines = markdown_table({'mIoU': 55.0, 'IoU.road': 60.0}).splitlines()
    assert lines[2:] == ['| road | 60.00 |', '| mIoU | 55.00 |']


def image(seed: int, num_classes: int, *, top: int) -> dict[str, Any]:
    """A prediction of all classes and a label below ``top``, with void; the last class is rare."""
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randint(num_classes, (1, 31, 45), generator=generator)
    label = torch.randint(top, (1, 31, 45), generator=generator)
    label[:, :5] = 255
    return dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=label.to(torch.uint8)))


def evaluate(kind: type[IoUMetric], images: list[dict], num_classes: int) -> dict[str, float]:
    metric = kind(iou_metrics=['mIoU', 'mDice', 'mFscore'])
    metric.dataset_meta = dict(classes=[str(i) for i in range(num_classes)])
    for one in images:
        metric.process({}, [one])
    return metric.evaluate(len(images))


@pytest.mark.parametrize(('num_classes', 'top'), [(1, 1), (2, 2), (19, 19), (19, 25), (200, 150)])
def test_all_scores_are_the_hosts_to_the_last_digit(num_classes: int, top: int) -> None:
    images = [image(seed, num_classes, top=top) for seed in range(7)]
    ours, host = (evaluate(kind, images, num_classes) for kind in (ClassIoUMetric, IoUMetric))
    assert len(host) == 7  # three of IoU, dice, and three of the F score
    assert {name: ours[name] for name in host} == pytest.approx(host, abs=0, nan_ok=True)


def test_pairs_are_those_counted_one_by_one() -> None:
    pred, label = (image(0, 19, top=25)[key]['data'][0] for key in ('pred_sem_seg', 'gt_sem_seg'))
    wanted = torch.zeros(20, 20, dtype=torch.int64)
    for p, t in zip(pred.flatten().tolist(), label.flatten().tolist(), strict=True):
        if t != 255:
            wanted[min(t, 19), p] += 1
    assert torch.equal(count_pairs(pred, label, 19), wanted)
    assert wanted[19].sum() > 0


def test_memory_does_not_grow_with_the_images() -> None:
    metric = ClassIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    sizes = []
    for seed in range(30):
        metric.process({}, [image(seed, 3, top=3)])
        sizes.append(len(pickle.dumps(metric.__dict__)))
    assert sizes[-1] <= sizes[1] + 16


def test_a_second_evaluation_starts_afresh() -> None:
    metric = ClassIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    scores = []
    for _ in range(2):
        metric.process({}, [image(0, 3, top=3)])
        scores.append(metric.evaluate(1))
    assert scores[0] == scores[1]


def own_images(rank: int) -> dict[str, torch.Tensor]:
    """What one of two processes scores of five images, of which the second sees one again."""
    seeds = [(rank + 2 * step) % 5 for step in range(3)]
    metric = ClassIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for seed in seeds:
        metric.process({}, [image(seed, 3, top=3)])
    return {name: torch.tensor(float(value)) for name, value in metric.evaluate(5).items()}


def test_two_processes_count_each_image_once(tmp_path: Path) -> None:
    alone = evaluate(IoUMetric, [image(seed, 3, top=3) for seed in range(5)], 3)
    for found in contrast_processes.run_two(own_images, tmp_path):
        assert {n: found[n].item() for n in ('mIoU', 'mAcc', 'aAcc')} == pytest.approx(
            {n: alone[n] for n in ('mIoU', 'mAcc', 'aAcc')}, abs=1e-5
        )
