"""Segments through the tools: a table row of mIoU, PQ and AP, pictures of tests and predictions."""

import csv
import os
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_ext.benchmark.model_result import data_set_name
from mmseg_ext.benchmark.rows import notes
from mmseg_ext.benchmark.table import make_table
from mmseg_ext.config import prepare
from mmseg_ext.datasets.streets import make_streets
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predict import predict
from mmseg_ext.inference.predictor import Predictor
from tests import segments_model
from tests.tiny import CONFIG_DIR
from tests.tiny_run import forget_visualizers

SIZE = (64, 128)


@pytest.fixture(scope='module')
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config of streets with segments, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('segments')
    make_streets(folder / 'streets', num_train=1, num_val=2, num_extra=0, size=SIZE, progress=False)
    config = folder / 'regions_streets.py'
    config.write_text(
        segments_model.CONFIG.format(configs=CONFIG_DIR, root=str(folder / 'streets'), size=SIZE)
    )
    cfg = prepare.load_config(str(config))
    torch.manual_seed(1)
    weights = MODELS.build(cfg.model).state_dict()
    weights['decode_head.conv_seg.weight'] *= 200  # so that no class wins everywhere
    torch.save(dict(state_dict=weights, meta={}), folder / 'model.pth')
    return config, folder / 'model.pth'


def test_a_row_has_miou_pq_and_ap(experiment: tuple[Path, Path], tmp_path: Path) -> None:
    config, checkpoint = experiment
    paths = os.pathsep.join([str(CONFIG_DIR.parent), os.environ.get('PYTHONPATH', '')])
    with mock.patch.dict(os.environ, PYTHONPATH=paths):
        (row,) = make_table([f'{config}={checkpoint}'], tmp_path)
    assert not row.failed, row.problem
    assert row.data_set == 'streets val'
    assert row.result is not None
    scores = row.result.scores
    assert scores['mIoU'] is not None and scores['PQ'] is not None and scores['AP'] is not None
    with open(tmp_path / 'table.csv', newline='') as file:
        headings, cells = csv.reader(file)
    assert headings[2:6] == ['mIoU', 'PQ', 'AP', 'box AP']
    assert [float(cell) for cell in cells[2:5]] == [scores['mIoU'], scores['PQ'], scores['AP']]
    assert any(note.startswith('PQ, AP, box AP: panoptic quality') for note in notes([row]))
    assert '"PQ"' in (tmp_path / 'report.html').read_text()


def test_a_test_scores_and_draws_segments(experiment: tuple[Path, Path], tmp_path: Path) -> None:
    forget_visualizers()
    cfg = prepare.prepare_test(
        *map(str, experiment), work_dir=str(tmp_path), show_dir=str(tmp_path / 'pictures')
    )
    metrics = launch.test(cfg)
    forget_visualizers()
    assert {'mIoU', 'PQ', 'PQ_th', 'PQ_st', 'AP', 'AP50', 'box_AP'} <= metrics.keys()
    assert '| PQ |' in (tmp_path / 'table.md').read_text()
    pictures = [cv2.imread(str(path)) for path in (tmp_path / 'pictures').rglob('*.png')]
    assert [picture.shape for picture in pictures] == [(448, 2 * 896, 3)] * 2


def test_predictions_are_drawn(experiment: tuple[Path, Path], tmp_path: Path) -> None:
    config, checkpoint = experiment
    images = config.parent / 'streets/leftImg8bit/val'
    predictor = Predictor(prepare.load_config(str(config)), checkpoint, 'cpu')
    predict(predictor, images, tmp_path)
    kinds = {path.name for path in tmp_path.iterdir()}
    assert kinds == {'overlay', 'color', 'mask', 'panoptic', 'instances'}
    for kind in ('panoptic', 'instances'):
        paths = sorted((tmp_path / kind).rglob('*.png'))
        assert len(paths) == 2
        assert cv2.imread(str(paths[0])).shape == (448, 896, 3)
    panoptic = cv2.imread(str(next((tmp_path / 'panoptic').rglob('*.png'))))
    assert len(np.unique(panoptic.reshape(-1, 3), axis=0)) > 50


def test_a_semantic_model_cannot_be_scored_by_segments(
    experiment: tuple[Path, Path], tmp_path: Path
) -> None:
    forget_visualizers()
    cfg = prepare.prepare_test(*map(str, experiment), work_dir=str(tmp_path))
    cfg.model.type = 'EncoderDecoder'
    with pytest.raises(UserError, match='the model predicts no segments: .* remove Panoptic'):
        launch.test(cfg)
    forget_visualizers()


def test_data_sets_are_named_by_what_they_hold() -> None:
    names = {
        'cityscapes_panoptic': ('cityscapes', 'val'),
        'streets_instance': ('streets', 'val'),
        'ade20k_panoptic': ('ADE20K', 'validation'),
        'coco_panoptic': ('coco', 'panoptic_val2017'),
    }
    for base, expected in names.items():
        cfg = prepare.read_config(str(CONFIG_DIR / f'_base_/datasets/{base}.py'))
        assert data_set_name(cfg) == expected
