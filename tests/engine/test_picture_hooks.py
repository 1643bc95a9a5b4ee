"""What lies in the work directory after real, tiny trainings with the picture hooks."""

import gc
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmengine.structures import PixelData

from mmseg_ext.engine.picture_hooks import _draw_sample
from tests.evaluation.segment_samples import data_sample, perturbed, random_label
from tests.inference.tiny_explainer import model_config

CLASSES = ('left', 'middle', 'right')
PALETTE = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
SIZE = (24, 36)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of three coloured stripes, and their labels."""
    root = tmp_path_factory.mktemp('data')
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True)
    label = np.repeat(np.arange(3, dtype=np.uint8), SIZE[1] // 3)[None].repeat(SIZE[0], 0)
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 60, (*SIZE, 3))
        image = (np.array(PALETTE)[label] + noise).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / f'images/{i}.png'), image[..., ::-1])
        cv2.imwrite(str(root / f'labels/{i}.png'), label)
    return root


def run(data_root: Path, work_dir: Path, iterations: int, resume: bool = False, **model) -> Runner:
    """Trains, validating and saving every 4 iterations of up to 8."""
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(data_root),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png',
        metainfo=dict(classes=CLASSES, palette=PALETTE),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    runner = Runner(
        model=model_config(**model),
        work_dir=str(work_dir),
        train_dataloader=ConfigDict(
            {**loader, 'batch_size': 2, 'sampler': dict(type='InfiniteSampler')}
        ),
        val_dataloader=ConfigDict(loader),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=4),
        val_cfg=dict(),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=dict(type='PolyLR', begin=0, end=8, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False)),
        custom_hooks=[
            dict(type='ValidationLossHook'),
            dict(type='CurvesHook', interval=2),
            dict(type='PicturesHook', num_images=2),
        ],
        randomness=dict(seed=0),
        experiment_name=f'stripes_{work_dir.name}_{iterations}_{resume}',
        default_scope='mmseg',
        resume=resume,
        log_level='ERROR',
    )
    runner.train()
    return runner


def records(work_dir: Path) -> list[dict]:
    return json.loads((work_dir / 'curves.json').read_text())


@pytest.fixture(scope='module')
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of 8 iterations without a break."""
    work_dir = tmp_path_factory.mktemp('trained')
    run(data_root, work_dir, 8)
    return work_dir


def test_a_training_leaves_curves_and_pictures(trained):
    first, last = records(trained)[0], records(trained)[-1]
    assert [r['iter'] for r in records(trained)] == [2, 4, 6, 8]
    assert last['loss'] < first['loss'] and last['lr'] < first['lr']
    for name in ('mIoU', 'val_loss'):
        assert [r['iter'] for r in records(trained) if name in r] == [4, 8]
    curves = cv2.imread(str(trained / 'curves.png'))
    assert curves.shape[0] > 400 and curves.std() > 10
    names = sorted(path.name for path in (trained / 'pictures').iterdir())
    assert names == ['0_000004.png', '0_000008.png', '1_000004.png', '1_000008.png']


@pytest.mark.parametrize('segmentor', ['EncoderDecoder', 'WindowedEncoderDecoder'])
def test_a_model_with_nothing_to_explain_gets_the_plain_panels(
    segmentor, trained, data_root, tmp_path
):
    run(data_root, tmp_path, 4, type=segmentor)
    plain = cv2.imread(str(tmp_path / 'pictures/0_000004.png'))
    explained = cv2.imread(str(trained / 'pictures/0_000004.png'))
    assert plain.shape[1] == explained.shape[1] and plain.shape[0] < explained.shape[0]


def test_no_picture_of_curves_stays_in_memory(data_root, tmp_path):
    gc.collect()
    gc.disable()
    try:
        run(data_root, tmp_path, 4)
        assert (tmp_path / 'curves.png').exists()
        figures = [figure for figure in gc.get_objects() if isinstance(figure, Figure)]
        assert not [figure for figure in figures if len(figure.axes) > 1]  # the host's have 1
    finally:
        gc.enable()


def test_a_resumed_run_continues_the_curves_and_repeats_what_was_lost(trained, data_root, tmp_path):
    run(data_root, tmp_path, 4)
    lost = [*records(tmp_path), {'iter': 6, 'loss': 99.0, 'lr': 1.0}]  # after the last checkpoint
    (tmp_path / 'curves.json').write_text(json.dumps(lost))
    run(data_root, tmp_path, 8, resume=True)
    assert [sorted(r) for r in records(tmp_path)] == [sorted(r) for r in records(trained)]
    assert [r['iter'] for r in records(tmp_path)] == [2, 4, 6, 8]
    assert all(r['loss'] < 50 for r in records(tmp_path))


def test_a_new_run_in_an_old_folder_starts_its_own_curves(trained, data_root, tmp_path):
    (tmp_path / 'curves.json').write_bytes((trained / 'curves.json').read_bytes())
    run(data_root, tmp_path, 4)
    assert [r['iter'] for r in records(tmp_path)] == [2, 4]


def test_missing_matplotlib_is_said_before_the_first_iteration(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr('mmseg_ext.engine.picture_hooks.find_spec', lambda name: None)
    warnings = []
    monkeypatch.setattr('logging.Logger.warning', lambda self, text, *a: warnings.append(text))
    run(data_root, tmp_path, 5)
    assert any('pip install matplotlib' in text for text in warnings)
    assert not (tmp_path / 'curves.png').exists()
    assert [r['iter'] for r in records(tmp_path)] == [2, 4, 5]  # the last iteration too


def test_segments_of_label_and_prediction_are_panels(data_root: Path) -> None:
    label = random_label(0, SIZE)
    sample = data_sample(label, perturbed(label, 0))
    sample.set_metainfo(dict(img_path=str(data_root / 'images/0.png')))
    classes = torch.zeros(1, *SIZE, dtype=torch.long)
    sample.pred_sem_seg = sample.gt_sem_seg = PixelData(data=classes)
    meta = dict(classes=('a', 'b', 'c', 'd'), palette=[[9, 9, 9]] * 4)
    picture = _draw_sample(sample, {}, meta)
    del sample.pred_panoptic_seg, sample.pred_instances
    without = _draw_sample(sample, {}, meta)
    assert picture.shape == without.shape  # six panels, or four, in rows of three
    height, width = picture.shape[0] // 3, picture.shape[1] // 3
    for panel in (slice(width, 2 * width), slice(2 * width, None)):
        lower = slice(2 * height, -40), panel  # above the legend
        assert (without[lower] == 255).all() and (picture[lower] != 255).mean() > 0.5
