"""``mmseg_ext.list_models``, ``load`` and ``predict``."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from torch import nn

import mmseg_ext
from mmseg_ext.errors import UserError
from mmseg_ext.inference import models
from mmseg_ext.inference.predictor import Predictor
from tests.inference.test_predict import PALETTE, SIZE, picture, write_experiment
from tests.tiny import CONFIGS


@pytest.fixture(scope='module')
def hmsa() -> nn.Module:
    return mmseg_ext.load('hmsa/hrnet18s_ocr_camvid')


def test_every_config_is_listed_by_its_name() -> None:
    names = mmseg_ext.list_models()
    assert names == sorted(f'{path.parent.name}/{path.stem}' for path in CONFIGS)
    some = mmseg_ext.list_models('*camvid*')
    assert 'hmsa/hrnet18s_ocr_camvid' in some and all('camvid' in name for name in some)
    assert mmseg_ext.list_models('nothing*') == []


def test_a_model_is_a_module_with_its_classes(hmsa: nn.Module) -> None:
    assert isinstance(hmsa, nn.Module) and not hmsa.training
    assert len(hmsa.dataset_meta['classes']) == len(hmsa.dataset_meta['palette']) == 11
    assert hmsa(torch.rand(1, 3, 32, 64)).shape == (1, 11, 32, 64)


def test_a_prediction_has_the_size_of_the_image(hmsa: nn.Module) -> None:
    classes, probabilities = mmseg_ext.predict(hmsa, picture(size=(45, 70)))
    assert classes.shape == (45, 70) and probabilities.shape == (11, 45, 70)
    assert classes.dtype == torch.int64 and torch.equal(probabilities.argmax(0), classes)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(45, 70))


def test_a_model_of_another_precision_predicts_too(hmsa: nn.Module) -> None:
    classes, probabilities = mmseg_ext.predict(copy.deepcopy(hmsa).bfloat16(), picture())
    assert probabilities.dtype == torch.float32 and classes.shape == picture().shape[:2]
    expected = mmseg_ext.predict(hmsa, picture())[1]
    torch.testing.assert_close(probabilities, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize('channels', [3, 1])
def test_files_and_arrays_of_a_checkpoint_equal_the_tool_and_the_host(channels, tmp_path) -> None:
    shape = dict(num_classes=3) if channels == 3 else dict(num_classes=2, out_channels=1)
    config, checkpoint = write_experiment(tmp_path, ('a', 'b', 'c')[: max(channels, 2)], **shape)
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    model = mmseg_ext.load(config, checkpoint)
    assert model.dataset_meta['palette'] == PALETTE[: max(channels, 2)]
    classes, probabilities = mmseg_ext.predict(model, tmp_path / 'a.png')
    assert probabilities.shape == (max(channels, 2), *SIZE)
    assert len(classes.unique()) > 1 and torch.equal(probabilities.argmax(0), classes)
    again = mmseg_ext.predict(model, picture())
    assert torch.equal(again[0], classes) and torch.equal(again[1], probabilities)
    of_tool = Predictor(model.cfg, checkpoint, 'cpu').file(tmp_path / 'a.png').label
    assert np.array_equal(of_tool, classes)
    host = init_model(str(config), str(checkpoint), device='cpu')
    host.cfg.test_pipeline = host.cfg.test_dataloader.dataset.pipeline
    assert torch.equal(inference_model(host, picture()).pred_sem_seg.data[0].long(), classes)
    assert torch.equal(mmseg_ext.predict(host, picture())[0], classes)


@pytest.mark.parametrize(
    ('image', 'sentence'),
    [
        ('missing.png', 'the image missing.png does not exist or is no file'),
        (np.zeros((4, 4), np.uint8), r'uint8 with the shape \(4, 4\): give uint8'),
        (np.zeros((4, 4, 3)), r'float64 with the shape \(4, 4, 3\): give uint8'),
        (np.zeros((0, 4, 3), np.uint8), r'with the shape \(0, 4, 3\)'),
        ([picture()], 'the image is a list: give a path, or a uint8 array'),
        (torch.zeros(3, 4, 4), 'the image is a Tensor: give a path, or a uint8 array'),
        (__file__, 'cannot be decoded as an image'),
    ],
)
def test_other_images_are_refused(image, sentence, hmsa) -> None:
    with pytest.raises(UserError, match=sentence):
        mmseg_ext.predict(hmsa, image)


def test_a_model_that_trains_or_has_no_config_is_refused(hmsa: nn.Module) -> None:
    with pytest.raises(UserError, match=r'call model.eval\(\) first'):
        mmseg_ext.predict(nn.Linear(1, 1), picture())
    with pytest.raises(UserError, match='load it by mmseg_ext.load'):
        mmseg_ext.predict(nn.Linear(1, 1).eval(), picture())


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('hmsa/hrnet18s_ocr_camvi', 'did you mean hmsa/hrnet18s_ocr_camvid'),
        ('zzz', r'list_models\(\) names all models'),
    ],
)
def test_an_unknown_model_is_refused_with_near_names(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mmseg_ext.load(name)


def test_tiles_without_probabilities_are_refused(monkeypatch, hmsa) -> None:
    predict = type(hmsa).predict

    def without_logits(self, *args):
        samples = predict(self, *args)
        del samples[0].seg_logits
        return samples

    monkeypatch.setattr(type(hmsa), 'predict', without_logits)
    with pytest.raises(UserError, match='test_cfg.memory_limit'):
        mmseg_ext.predict(hmsa, picture())


def test_names_of_the_package_are_those_of_the_module() -> None:
    assert mmseg_ext.load is models.load and mmseg_ext.predict is models.predict
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmseg_ext.nothing
