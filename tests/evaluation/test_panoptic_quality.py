"""PanopticQuality against its definition, against torchmetrics, and over processes."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from torchmetrics.detection import PanopticQuality as TorchMetricsQuality

from mmseg_ext.errors import UserError
from mmseg_ext.evaluation.panoptic_quality import PanopticQuality, count_matches, qualities
from tests.datasets.panoptic_files import COCO, needs_coco, panoptic_config
from tests.evaluation.segment_samples import META, Label, data_sample, perturbed, random_label
from tests.oracles import panoptic_quality as oracle
from tests.papers import contrast_processes


def metric(**meta: Any) -> PanopticQuality:
    built = PanopticQuality()
    built.dataset_meta = {**META, **meta}
    return built


def score(pairs: list[tuple[Label, Label]], **meta: Any) -> dict[str, float]:
    built = metric(**meta)
    built.process({}, [data_sample(label, pred).to_dict() for label, pred in pairs])
    return built.evaluate(len(pairs))


def test_counts_are_those_of_the_definition() -> None:
    total = np.zeros(4)
    for seed in range(40):
        label = random_label(seed)
        pred = perturbed(label, seed)
        counts = count_matches(pred, label, 4)
        expected = oracle.count_matches(pred, label, 4)
        np.testing.assert_allclose(counts, expected, rtol=1e-12)
        total += counts.sum(0)
    assert (total > 20).all()  # matches, and errors of both kinds


def without_crowds(label: Label) -> Label:
    ids, segments = label
    crowds = [item['id'] for item in segments if item['iscrowd']]
    return np.where(np.isin(ids, crowds), 0, ids), [s for s in segments if not s['iscrowd']]


def torchmetrics_score(pairs: list[tuple[Label, Label]], num_classes: int, things: Any) -> Any:
    """PQ, SQ and RQ of each class by torchmetrics.

    It has no crowds. Pixels without a prediction are no error in it, unlike in COCO.
    """
    stuff = set(range(num_classes)) - set(things)
    other = TorchMetricsQuality(
        things=set(things),
        stuffs=stuff,
        allow_unknown_preds_category=True,
        return_sq_and_rq=True,
        return_per_class=True,
    )
    for (label_ids, labels), (pred_ids, preds) in pairs:
        maps = []
        for ids, segments in ((pred_ids, preds), (label_ids, labels)):
            classes = np.full(ids.shape, num_classes)
            for item in segments:
                classes[ids == item['id']] = item['category_id']
            maps.append(torch.from_numpy(np.stack([classes, ids], -1))[None])
        other.update(*maps)
    order = [*sorted(things), *sorted(stuff)]
    return other.compute()[np.argsort(order)].numpy()  # it has things first


def without_void(pred: Label) -> Label:
    """The prediction with sky in place of void, and with one segment for each class of stuff."""
    ids, segments = pred
    ids = np.where(ids == 0, 2**24 + 3, ids)
    kept: dict[int, dict] = {}
    for item in [dict(id=2**24 + 3, category_id=3, isthing=False, score=1.0), *segments]:
        stuff = item['category_id'] in (0, 3)
        key = 2**24 + item['category_id'] if stuff else item['id']
        ids[ids == item['id']] = key
        kept[key] = dict(item, id=key)
    present = set(np.unique(ids))
    return ids, [item for key, item in kept.items() if key in present]


def test_torchmetrics_has_the_same_qualities_without_crowds_and_predicted_void() -> None:
    pairs = []
    for seed in range(30):
        label = without_crowds(random_label(seed))
        pairs.append((label, without_void(perturbed(label, seed))))
    counts = sum(count_matches(pred, label, 4) for label, pred in pairs)
    assert counts[:, 1:].sum(0).min() > 10
    expected = torchmetrics_score(pairs, 4, (1, 2))
    np.testing.assert_allclose(qualities(counts), expected, atol=1e-6)


@needs_coco
def test_the_real_sample_and_its_perturbed_copies() -> None:
    config = panoptic_config(COCO / 'panoptic')
    config['ann_file'] = 'panoptic_examples.json'
    config['data_prefix'] = dict(img_path='input_images', seg_map_path='panoptic_examples')
    data = DATASETS.build(config)
    meta = {key: data.metainfo[key] for key in ('classes', 'thing_classes')}
    labels = []
    for item in data:
        sample = item['data_samples']
        labels.append((sample.gt_panoptic_seg.panoptic_seg[0].numpy(), sample.segments_info))
    same = [(label, (label[0], [dict(s, score=1.0) for s in label[1]])) for label in labels]
    assert {key: value for key, value in score(same, **meta).items() if value != 100.0} == {}
    assert sum(item['iscrowd'] for _, segments in labels for item in segments) == 3
    for seed in range(4):
        pairs = [(label, perturbed(label, seed, 133, reach=8)) for label in labels]
        counts = sum(count_matches(pred, label, 133) for label, pred in pairs)
        expected = sum(oracle.count_matches(pred, label, 133) for label, pred in pairs)
        np.testing.assert_allclose(counts, expected, rtol=1e-12)
        assert counts[:, 1].sum() > 8 and counts[:, 2:].sum() > 8


def test_means_are_of_classes_that_occur_and_of_things_and_stuff() -> None:
    ids = np.repeat([0, 5, 6, 9], 10)[None].astype(np.int32)  # void, wall, cat, cat
    segments = [
        dict(id=5, category_id=0, isthing=False, iscrowd=False),
        dict(id=6, category_id=1, isthing=True, iscrowd=False),
        dict(id=9, category_id=1, isthing=True, iscrowd=False),
    ]
    found = ids.copy()
    found[0, :12], found[0, 26:30] = 5, 9  # wall over void; cats 6 and 14
    scores = score([((ids, segments), (found, [dict(s, score=1.0) for s in segments]))])
    assert scores['PQ_st'] == scores['SQ_st'] == 100.0
    # Cats: IoU 6/10 and 10/14 are both above 0.5.
    assert scores['PQ_th'] == pytest.approx(100 * (6 / 10 + 10 / 14) / 2, abs=0.01)
    assert scores['PQ'] == pytest.approx((100 + scores['PQ_th']) / 2, abs=0.01)
    assert scores['RQ'] == 100.0


def test_without_any_segment_the_scores_are_nan() -> None:
    empty: Label = (np.zeros((8, 9), np.int32), [])
    assert all(math.isnan(value) for value in score([(empty, empty)]).values())


def test_a_single_class() -> None:
    ids = np.ones((8, 9), np.int32)
    label = ids, [dict(id=1, category_id=0, isthing=True, iscrowd=False)]
    pred = ids, [dict(id=1, category_id=0, isthing=True, score=0.5)]
    scores = score([(label, pred)], classes=('cat',), thing_classes=(0,))
    assert scores['PQ'] == scores['PQ_th'] == 100.0 and math.isnan(scores['PQ_st'])


def test_missing_segments_and_packages_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = data_sample(random_label(0), perturbed(random_label(0), 0))
    del sample.pred_panoptic_seg
    with pytest.raises(UserError, match='the model predicts no segments: .* remove Panoptic'):
        metric().process({}, [sample.to_dict()])
    sample = data_sample(random_label(0), perturbed(random_label(0), 0))
    del sample.gt_panoptic_seg
    with pytest.raises(UserError, match='segments of the label, but .* LoadPanoptic'):
        metric().process({}, [sample.to_dict()])
    monkeypatch.setitem(sys.modules, 'hotcoco.panoptic', None)
    with pytest.raises(UserError, match='^PanopticQuality needs hotcoco: pip install hotcoco$'):
        PanopticQuality()


def images_of_one_process(rank: int) -> dict[str, torch.Tensor]:
    """What one of two processes scores of five images, of which the second sees one again."""
    built = metric()
    for i in [(rank + 2 * step) % 5 for step in range(3)]:
        label = random_label(i)
        built.process({}, [data_sample(label, perturbed(label, i)).to_dict()])
    return {name: torch.tensor(value) for name, value in built.evaluate(5).items()}


def test_two_processes_score_each_image_once(tmp_path: Path) -> None:
    labels = [random_label(i) for i in range(5)]
    expected = score([(label, perturbed(label, i)) for i, label in enumerate(labels)])
    for scores in contrast_processes.run_two(images_of_one_process, tmp_path):
        assert {name: value.item() for name, value in scores.items()} == pytest.approx(expected)
