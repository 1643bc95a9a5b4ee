"""Pictures of segments and objects, and the visualizer that draws those of samples."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmseg_ext.visualization.segments import (
    Shape,
    draw_shapes,
    shapes_of_instances,
    shapes_of_map,
)
from mmseg_ext.visualization.visualizer import SegmentsVisualizer, label_shapes
from tests.evaluation.segment_samples import data_sample, perturbed, random_label

CLASSES, PALETTE = ('wall', 'cat'), [[90, 90, 90], [0, 200, 0]]
IMAGE = np.full((100, 200, 3), 128, np.uint8)


def box(top: int, left: int, bottom: int, right: int, **more: Any) -> Shape:
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return Shape(mask, more.pop('label', 1), **more)


def draw(*shapes: Shape, **options: Any) -> np.ndarray:
    return draw_shapes(IMAGE, shapes, CLASSES, PALETTE, **{'min_width': 0, **options})


def test_each_object_has_its_colour_and_stuff_that_of_its_class() -> None:
    wall = box(0, 0, 100, 200, label=0, thing=False)
    cats = [box(10, 10, 20, 40), box(10, 60, 20, 90), box(10, 110, 20, 140)]
    picture = draw(wall, *cats)
    inner = [tuple(picture[15, x].tolist()) for x in (15, 65, 115)]
    assert len(set(inner)) == 3
    assert abs(picture[90, 150].astype(int) - (128 * 0.45 + 90 * 0.55)).max() <= 1
    assert picture[10, 20].min() > 200  # white outlines
    assert all(np.ptp(color) > 60 for color in inner)


def written(picture: np.ndarray, without: np.ndarray) -> bool:
    """Whether there is a name that another picture lacks."""
    return bool((picture != without).any())


def test_names_and_scores_are_written_where_there_is_room() -> None:
    cat = box(10, 10, 80, 190)
    picture = draw(cat)
    assert written(picture, draw(cat._replace(label=0)))
    assert written(picture, draw(cat._replace(score=0.5)))
    assert written(draw(cat._replace(score=0.5)), draw(cat._replace(score=0.6)))
    assert written(picture, draw(cat._replace(crowd=True)))
    small = box(10, 10, 14, 14)
    assert not written(draw(small), draw(small._replace(label=0)))  # no room


def test_a_small_image_is_enlarged_for_its_names() -> None:
    small = box(10, 10, 26, 30, score=0.5)
    assert draw(small, min_width=800).shape == (400, 800, 3)
    assert written(draw(small, min_width=800), draw(small._replace(score=0.6), min_width=800))


def test_an_object_of_higher_score_lies_above() -> None:
    cats = [box(0, 0, 60, 100, score=0.9), box(30, 50, 100, 200, score=0.4)]
    assert (draw(*cats) == draw(*cats[::-1])).all()
    both = draw(*cats).astype(int)
    upper, lower = both[5, 50], both[90, 60]  # of one object alone
    assert abs(both[35, 55] - upper).sum() < abs(both[35, 55] - lower).sum()


def test_nothing_to_draw_leaves_the_image() -> None:
    assert (draw() == IMAGE).all()
    assert (draw(box(0, 0, 0, 0)) == IMAGE).all()


def test_objects_of_low_scores_are_left_out() -> None:
    instances = InstanceData(
        masks=torch.ones(3, 4, 5, dtype=torch.bool),
        labels=torch.tensor([0, 1, 1]),
        scores=torch.tensor([0.9, 0.31, 0.2]),
    )
    assert [s.label for s in shapes_of_instances(instances)] == [0, 1]
    assert len(shapes_of_instances(instances, min_score=0.0)) == 3
    empty = instances[torch.zeros(3, dtype=torch.bool)]
    assert shapes_of_instances(empty) == []


def test_shapes_of_a_map_are_its_segments() -> None:
    label = random_label(3)
    shapes = shapes_of_map(torch.from_numpy(label[0])[None], label[1])
    assert [s.label for s in shapes] == [item['category_id'] for item in label[1]]
    assert [s.crowd for s in shapes] == [item['iscrowd'] for item in label[1]]
    for shape, item in zip(shapes, label[1], strict=True):
        assert (shape.mask == (label[0] == item['id'])).all() and shape.score is None


@pytest.fixture
def visualizer() -> SegmentsVisualizer:
    visualizer = SegmentsVisualizer(alpha=0.5)
    visualizer.dataset_meta = dict(classes=('wall', 'cat', 'dog', 'sky'), palette=[[9, 9, 9]] * 4)
    return visualizer


def drawn(visualizer: SegmentsVisualizer, sample: SegDataSample, path: Path, **options: Any) -> Any:
    image = np.full((40, 60, 3), 99, np.uint8)
    visualizer.add_datasample('a', image, sample, out_file=str(path / 'a.png'), **options)
    return cv2.imread(str(path / 'a.png'))[..., ::-1]


def test_the_visualizer_draws_label_and_prediction(
    visualizer: SegmentsVisualizer, tmp_path: Path
) -> None:
    label = random_label(1)
    sample = data_sample(label, perturbed(label, 1))
    sample.pred_sem_seg = PixelData(data=torch.zeros(1, 40, 60, dtype=torch.long))
    both = drawn(visualizer, sample, tmp_path)
    assert both.shape == (560, 2 * 840, 3)  # enlarged for the names
    meta = visualizer.dataset_meta
    left = draw_shapes(
        np.full((40, 60, 3), 99, np.uint8), label_shapes(sample) or [], *meta.values()
    )
    assert (both[:, :840] == left).all() and (both[:, 840:] != left).any()
    assert drawn(visualizer, sample, tmp_path, draw_gt=False).shape == (560, 840, 3)
    del sample.pred_panoptic_seg  # a result of instances
    assert drawn(visualizer, sample, tmp_path).shape == (560, 2 * 840, 3)
    del sample.pred_instances, sample.pred_sem_seg
    assert (drawn(visualizer, sample, tmp_path) == left).all()  # browsing: the label alone


def test_semantic_samples_are_drawn_as_by_the_host(
    visualizer: SegmentsVisualizer, tmp_path: Path
) -> None:
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.ones(1, 40, 60, dtype=torch.long)),
        pred_sem_seg=PixelData(data=torch.ones(1, 40, 60, dtype=torch.long)),
    )
    assert drawn(visualizer, sample, tmp_path).shape == (40, 120, 3)
    label = random_label(1)
    sample = data_sample(label, label_as_prediction(label))
    sample.gt_sem_seg = PixelData(data=torch.ones(1, 40, 60, dtype=torch.long))
    sample.pred_sem_seg = sample.gt_sem_seg
    del sample.pred_panoptic_seg, sample.pred_instances  # a semantic result of panoptic data
    assert drawn(visualizer, sample, tmp_path).shape == (40, 120, 3)


def label_as_prediction(label: Any) -> Any:
    return label[0], [dict(item, score=1.0) for item in label[1]]
