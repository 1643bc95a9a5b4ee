"""The host's ``inference_model`` and ``MMSegInferencer`` with every kind of model."""

from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import save_checkpoint
from mmseg.apis import MMSegInferencer, inference_model, init_model

import mmseg_ext
from tests.tiny import CONFIGS, build, different_configs, shrink

SIZE = (52, 76)


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    pictures = np.random.default_rng(0).integers(0, 255, (2, *SIZE, 3), np.uint8)
    for name, picture in zip('ab', pictures, strict=True):
        cv2.imwrite(str(folder / f'{name}.png'), picture)
    writer = cv2.VideoWriter(str(folder / 'c.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, SIZE[::-1])
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return folder


def small_config(path: Path) -> Config:
    """The config with its model shrunk, and with small images."""
    cfg = Config.fromfile(path)
    cfg.model = ConfigDict(shrink(cfg.model.to_dict()))
    for pipeline in (cfg.test_pipeline, cfg.test_dataloader.dataset.pipeline):
        for transform in pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = (64, 48)
    return cfg


@pytest.mark.parametrize(
    'path', different_configs(), ids=lambda path: f'{path.parent.name}/{path.stem}'
)
def test_the_host_predicts_with_every_kind_of_model(
    path: Path, files: Path, tmp_path: Path
) -> None:
    cfg = small_config(path)
    checkpoint = str(tmp_path / 'weights.pth')
    state = build(cfg.model).state_dict()
    classes = [str(i) for i in range(256)]
    meta = dict(dataset_meta=dict(classes=classes, palette=[[i, i, i] for i in range(256)]))
    save_checkpoint(dict(state_dict=state, meta=meta), checkpoint)

    a, b = (str(files / f'{name}.png') for name in 'ab')
    model = init_model(cfg, checkpoint, device='cpu')
    inferencer = MMSegInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    first = inference_model(model, a).pred_sem_seg.data[0]
    assert first.shape == SIZE
    frames = list(mmcv.VideoReader(str(files / 'c.avi')))
    of_array, *of_files = [inference_model(model, cv2.imread(a)), *inference_model(model, [a, b])]
    for result in (of_array, of_files[0]):
        assert torch.equal(result.pred_sem_seg.data[0], first)
    assert len(inference_model(model, frames)) == 2
    classes, probabilities = mmseg_ext.predict(model, a)
    assert torch.equal(classes, first) and probabilities.shape == (model.num_classes, *SIZE)
    assert torch.equal(probabilities.gather(0, classes[None])[0], probabilities.amax(0))

    for inputs in (a, cv2.imread(a)):
        result = inferencer(inputs, return_vis=True)
        assert np.array_equal(result['predictions'], first.numpy())
        assert result['visualization'].shape == (*SIZE, 3)
    assert len(inferencer([a, b])['predictions']) == len(inferencer(frames)['predictions']) == 2


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_the_pipeline_that_the_host_reads_is_that_of_the_test(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
