"""InstanceAP against hotcoco's evaluation of COCO, on drawn and real objects, over processes."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hotcoco import COCO as HotCoco
from hotcoco import COCOeval
from mmengine.structures import InstanceData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample

from mmseg_ext.datasets.panoptic.transforms import boxes_of_masks
from mmseg_ext.errors import UserError
from mmseg_ext.evaluation.instance_ap import InstanceAP
from mmseg_ext.evaluation.segment_masks import box_of_mask
from tests.datasets.panoptic_files import COCO, needs_coco
from tests.evaluation.segment_samples import META, data_sample, perturbed, random_label
from tests.papers import contrast_processes


def metric(meta: dict[str, Any] | None = None, **kwargs: Any) -> InstanceAP:
    built = InstanceAP(**kwargs)
    built.dataset_meta = meta or META
    return built


def score(samples: list[SegDataSample], **kwargs: Any) -> dict[str, float]:
    built = metric(**kwargs)
    for sample in samples:
        built.process({}, [sample.to_dict()])
    return built.evaluate(len(samples))


def drawn(count: int = 8) -> list[SegDataSample]:
    labels = [random_label(i, (80, 120)) for i in range(count)]
    return [data_sample(label, perturbed(label, i)) for i, label in enumerate(labels)]


def hotcoco_scores(labels: dict, results: list[dict]) -> dict[str, float]:
    """Scores in per cent of results in COCO's form, by another library."""
    scores = {}
    truth = HotCoco(labels)
    for kind, prefix in (('segm', ''), ('bbox', 'box_')):
        other = 'bbox' if kind == 'segm' else 'segmentation'
        chosen = [{key: value for key, value in r.items() if key != other} for r in results]
        evaluation = COCOeval(truth, truth.load_res(chosen), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')
        for name, value in zip(names, evaluation.stats, strict=False):
            scores[prefix + name] = round(100 * value, 2) if value > -1 else math.nan
    return scores


def encode(mask: Any) -> dict[str, Any]:
    from pycocotools.mask import encode as encode_mask

    run_lengths = encode_mask(np.asfortranarray(mask, np.uint8))
    return dict(size=run_lengths['size'], counts=run_lengths['counts'].decode())


def results_of(samples: list[SegDataSample], ids: list[int], categories: list[int]) -> list[dict]:
    """Predictions of things in COCO's form for results; ``categories`` by class index."""
    results = []
    for sample, image in zip(samples, ids, strict=True):
        pred = sample.pred_instances
        for label, value, mask, box in zip(
            pred.labels.tolist(),
            pred.scores.tolist(),
            pred.masks,
            pred.bboxes.tolist(),
            strict=True,
        ):
            if categories[label] is not None:
                x1, y1, x2, y2 = box
                results.append(
                    dict(
                        image_id=image,
                        category_id=categories[label],
                        score=value,
                        segmentation=encode(mask),
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                    )
                )
    return results


def test_things_of_a_panoptic_label_are_scored_as_by_another_library() -> None:
    samples = drawn()
    annotations = []
    for image, sample in enumerate(samples):
        ids = sample.gt_panoptic_seg.panoptic_seg[0].numpy()
        for item in sample.segments_info:
            if item['isthing']:
                mask = ids == item['id']
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image,
                        category_id=item['category_id'],
                        iscrowd=int(item['iscrowd']),
                        segmentation=encode(mask),
                        area=int(mask.sum()),
                        bbox=box_of_mask(mask),
                    )
                )
    labels = dict(
        images=[dict(id=i, height=80, width=120) for i in range(len(samples))],
        annotations=annotations,
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
    )
    expected = hotcoco_scores(
        labels, results_of(samples, [*range(len(samples))], [None, 1, 2, None])
    )
    assert 10 < expected['AP'] < 90
    assert score(samples) == pytest.approx(expected, abs=0.011, nan_ok=True)


def test_only_the_predictions_with_the_highest_scores_count() -> None:
    samples = drawn(3)
    scores = score(samples, max_per_image=1, kinds=('segm',))
    assert set(scores) == {'AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l'}
    assert scores['AP'] < score(samples)['AP']


def test_perfect_predictions_crowds_and_images_without_objects() -> None:
    label = random_label(2)
    exact = [dict(item, score=0.9) for item in label[1] if not item['iscrowd']]
    empty = (np.zeros((40, 60), np.int32), [])
    scores = score([data_sample(label, (label[0], exact)), data_sample(empty, empty)])
    assert scores['AP'] == scores['box_AP'] == 100.0
    assert all(math.isnan(value) for value in score([data_sample(empty, empty)]).values())


def copies(instances: InstanceData, seed: int) -> InstanceData:
    """Predictions: the masks, some moved, some with another class."""
    rng = np.random.default_rng(seed)
    masks, labels = [], []
    for mask, label in zip(instances.masks, instances.labels.tolist(), strict=True):
        masks.append(mask.roll(tuple(rng.integers(-6, 7, 2).tolist()), (0, 1)))
        labels.append(label if rng.random() > 0.1 else int(rng.integers(80)))
    stacked = torch.stack(masks) if masks else instances.masks
    return InstanceData(
        masks=stacked,
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.from_numpy(rng.random(len(masks))),
        bboxes=boxes_of_masks(stacked),
    )


@needs_coco
def test_real_objects_are_scored_as_the_json_says() -> None:
    root = COCO / 'tiny'
    data = DATASETS.build(
        dict(
            type='CocoInstanceDataset',
            data_root=str(root),
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img_path='images/val2017'),
            pipeline=[
                dict(type='LoadImage'),
                dict(type='LoadPanoptic'),
                dict(type='PackPanopticInputs'),
            ],
        )
    )
    samples = [item['data_samples'] for item in data]
    for seed, sample in enumerate(samples):
        sample.pred_instances = copies(sample.gt_instances, seed)
    content = json.loads((root / 'annotations/instances_val2017.json').read_text())
    categories = [c['id'] for c in content['categories']]
    images = [image['id'] for image in content['images']]
    expected = hotcoco_scores(content, results_of(samples, images, categories))
    assert 20 < expected['AP'] < 90 and 20 < expected['box_AP'] < 90
    assert score(samples, meta=data.metainfo) == pytest.approx(expected, abs=0.011)


def test_wrong_use_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = drawn(1)[0].to_dict()
    with pytest.raises(UserError, match='InstanceAP needs a data set with things'):
        metric(dict(classes=('a',), thing_classes=())).process({}, [sample])
    with pytest.raises(UserError, match='the model predicts no instances: .* remove InstanceAP'):
        metric().process({}, [{**sample, 'pred_instances': None}])
    with pytest.raises(UserError, match='segments of the label, but the pipeline loads none'):
        metric().process({}, [{**sample, 'gt_panoptic_seg': None}])
    with pytest.raises(UserError, match=r"kinds=\('mask',\) must be one or both of segm, bbox"):
        InstanceAP(kinds=('mask',))
    with pytest.raises(UserError, match='max_per_image=0 must be 1 or more'):
        InstanceAP(max_per_image=0)
    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    with pytest.raises(UserError, match='^InstanceAP needs pycocotools: pip install pycocotools$'):
        InstanceAP()


def images_of_one_process(rank: int) -> dict[str, torch.Tensor]:
    """What one of two processes scores of five images, of which the second sees one again."""
    built, samples = metric(), drawn(5)
    for i in [(rank + 2 * step) % 5 for step in range(3)]:
        built.process({}, [samples[i].to_dict()])
    return {name: torch.tensor(value) for name, value in built.evaluate(5).items()}


def test_two_processes_score_each_image_once(tmp_path: Path) -> None:
    expected = score(drawn(5))
    for scores in contrast_processes.run_two(images_of_one_process, tmp_path):
        found = {name: value.item() for name, value in scores.items()}
        assert found == pytest.approx(expected, nan_ok=True)
