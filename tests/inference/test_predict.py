"""``tools/predict.py`` on images, folders and videos, with a model of a few weights."""

import importlib.util
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_ext.inference import predict as predict_module
from mmseg_ext.inference.predictor import Predictor
from tests.inference.tiny_explainer import model_config

ROOT = Path(__file__).parents[2]
CLASSES = ('left', 'middle', 'right')
PALETTE = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
SIZE = (25, 37)  # odd, and neither a multiple of the preprocessor's 16


def write_experiment(folder: Path, classes: tuple | None = CLASSES, **model) -> tuple[Path, Path]:
    """A config whose test pipeline doubles the image, and a checkpoint of random weights."""
    config = Config(
        dict(
            model=model_config(**model),
            test_dataloader=dict(
                dataset=dict(
                    type='CityscapesDataset',
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='Resize', scale_factor=2.0, keep_ratio=True),
                        dict(type='LoadAnnotations'),
                        dict(type='PackSegInputs'),
                    ],
                )
            ),
        )
    )
    config.dump(folder / 'config.py')
    meta = dict(dataset_meta=dict(classes=classes, palette=PALETTE)) if classes else {}
    weights = MODELS.build(config.model).state_dict()
    weights['decode_head.conv_seg.weight'] *= 50  # so that no class wins everywhere
    torch.save(dict(state_dict=weights, meta=meta), folder / 'model.pth')
    return folder / 'config.py', folder / 'model.pth'


@pytest.fixture
def experiment(tmp_path: Path) -> tuple[Path, Path]:
    return write_experiment(tmp_path)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def main(*arguments: object) -> None:
    spec = importlib.util.spec_from_file_location('predict_tool', ROOT / 'tools/predict.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([str(a) for a in (*arguments, '--device', 'cpu')])


def refusal(*arguments: object) -> str:
    """The sentence that the tool ends with."""
    with pytest.raises(SystemExit) as stop:
        main(*arguments)
    (line,) = str(stop.value).splitlines()
    return line


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def test_an_image_gets_overlay_colours_and_indices_of_its_size(experiment, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    main(*experiment, tmp_path / 'a.png', '--out', tmp_path / 'out')
    assert files(tmp_path / 'out') == {'overlay/a.png', 'color/a.png', 'mask/a.png'}
    mask, color = read(tmp_path / 'out/mask/a.png'), read(tmp_path / 'out/color/a.png')
    assert mask.shape == SIZE and len(np.unique(mask)) > 1
    assert np.array_equal(color[..., ::-1], np.array(PALETTE)[mask])
    half = picture() / 2.0 + color / 2.0
    assert np.abs(read(tmp_path / 'out/overlay/a.png') - half).max() <= 1


def test_only_files_of_a_folder_are_images(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    (tmp_path / 'b.png').mkdir()
    assert predict_module.find_inputs(tmp_path) == [tmp_path / 'a.png']
    (tmp_path / 'c.png').symlink_to('c.png')
    with pytest.raises(ValueError, match=r'c\.png is named like an image .* broken link'):
        predict_module.find_inputs(tmp_path)


def test_the_mask_is_what_the_model_predicts(experiment, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    main(*experiment, tmp_path / 'a.png', '--out', tmp_path / 'out')
    model = MODELS.build(Config.fromfile(experiment[0]).model).eval()
    model.load_state_dict(torch.load(experiment[1])['state_dict'])
    doubled = cv2.resize(picture(), (2 * SIZE[1], 2 * SIZE[0]))
    x = torch.from_numpy(doubled[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.pad((x - 127) / 64, (0, 80 - 2 * SIZE[1], 0, 64 - 2 * SIZE[0]))
    logits = model._forward(x)[:, :, : 2 * SIZE[0], : 2 * SIZE[1]]
    expected = torch.nn.functional.interpolate(logits, SIZE, mode='bilinear').argmax(1)[0]
    assert np.array_equal(read(tmp_path / 'out/mask/a.png'), expected.numpy())


def test_a_folder_keeps_its_sub_folders(experiment, tmp_path):
    for name in ('x/a.png', 'x/b.JPG', 'y/deep/a.png'):
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture())
    (tmp_path / 'in/notes.txt').write_text('no image')
    main(*experiment, tmp_path / 'in', '--out', tmp_path / 'out', '--explain')
    names = ('x/a.png', 'x/b.png', 'y/deep/a.png')
    kinds = ('overlay', 'color', 'mask', 'explain')
    assert files(tmp_path / 'out') == {f'{kind}/{name}' for kind in kinds for name in names}


@pytest.mark.parametrize('out', ['in', 'in/out'])
def test_results_do_not_become_images(experiment, tmp_path, out):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    (tmp_path / 'in').mkdir()
    shutil.copy(tmp_path / 'a.png', tmp_path / 'in')
    with pytest.raises(SystemExit, match='so results would become images'):
        main(*experiment, tmp_path / 'in', '--out', tmp_path / out)
    assert files(tmp_path / 'in') == {'a.png'}


def write_video(path: Path, frames: int = 3) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 5, (64, 48))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(picture(i, (48, 64)))
    writer.release()


def test_a_video_becomes_videos_and_frames_of_indices(experiment, tmp_path):
    write_video(tmp_path / 'drive.avi')
    main(*experiment, tmp_path / 'drive.avi', '--out', tmp_path / 'out', '--explain')
    masks = {f'mask/drive/{i:06d}.png' for i in range(3)}
    videos = {f'{kind}/drive.mp4' for kind in ('overlay', 'color', 'explain')}
    assert files(tmp_path / 'out') == masks | videos
    for name in videos:
        capture = cv2.VideoCapture(str(tmp_path / 'out' / name))
        assert capture.get(cv2.CAP_PROP_FPS) == 5
        shown = list(predict_module._frames(capture))
        assert len(shown) == 3 and shown[0].std() > 10


def test_a_video_becomes_frames_where_no_codec_is_at_hand(experiment, tmp_path, monkeypatch):
    write_video(tmp_path / 'drive.avi', frames=2)
    no_codec = mock.Mock(fourcc=cv2.VideoWriter.fourcc)
    no_codec.return_value.isOpened.return_value = False
    monkeypatch.setattr(cv2, 'VideoWriter', no_codec)
    main(*experiment, tmp_path / 'drive.avi', '--out', tmp_path / 'out')
    kinds = ('overlay', 'color', 'mask')
    names = {f'{kind}/drive/{i:06d}.png' for kind in kinds for i in range(2)}
    assert files(tmp_path / 'out') == names


def test_a_frame_is_predicted_like_its_file(experiment, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    predictor = Predictor(Config.fromfile(experiment[0]), experiment[1], 'cpu')
    from_file, from_frame = predictor.file(tmp_path / 'a.png'), predictor.frame(picture())
    assert np.array_equal(from_file.label, from_frame.label)
    assert np.array_equal(from_file.image, from_frame.image)


def test_the_maps_cover_the_image_without_the_padding(experiment):
    predictor = Predictor(Config.fromfile(experiment[0]), experiment[1], 'cpu', explain=True)
    maps = predictor.frame(picture()).maps
    assert maps['attention_0.5'].shape[1:] == (50, 74)  # the input is 64x80
    assert maps['prediction_0.5'].shape[1:] == (25, 37)


def test_a_pixel_is_given_to_the_model_where_the_input_shows_it(experiment):
    config, image = Config.fromfile(experiment[0]), picture()
    image[10, 30] = 255
    image[:10] = image[11:21] = 0
    maps = Predictor(config, experiment[1], 'cpu', pixel=(30, 10)).frame(image).maps
    y, x = divmod(int(maps['attention_of_pixel'].argmax()), 74)
    assert (y // 2, x // 2) == (10, 30)


def test_the_pixel_is_marked_on_maps_over_the_image_but_not_on_tables(experiment):
    predictor = Predictor(Config.fromfile(experiment[0]), experiment[1], 'cpu', pixel=(30, 10))
    prediction = predictor.frame(picture())
    for values, marked in ((torch.zeros(1, 25, 37), True), (torch.zeros(4, 25, 1), False)):
        shown = replace(prediction, maps={'map': values})
        strips = [predictor.draw(replace(shown, pixel=p))['explain'] for p in ((30, 10), None)]
        third = [strip[:, strip.shape[1] * 2 // 3 :] for strip in strips]
        assert np.array_equal(*third) == (not marked)


def test_classes_come_from_the_config_where_the_checkpoint_has_none(tmp_path):
    config, checkpoint = write_experiment(tmp_path, classes=None, num_classes=19)
    predictor = Predictor(Config.fromfile(config), checkpoint, 'cpu')
    assert predictor.classes[0] == 'road' and predictor.palette[0] == [128, 64, 128]


def test_two_classes_of_one_output_channel_are_drawn(tmp_path):
    config, checkpoint = write_experiment(
        tmp_path, classes=CLASSES[:2], num_classes=2, out_channels=1
    )
    predictor = Predictor(Config.fromfile(config), checkpoint, 'cpu')
    assert set(np.unique(predictor.draw(predictor.frame(picture()))['mask'])) <= {0, 1}


def test_mistakes_get_one_sentence(experiment, tmp_path):
    out = ('--out', tmp_path / 'out')
    assert 'nowhere.png does not exist' in refusal(*experiment, 'nowhere.png', *out)
    (tmp_path / 'empty').mkdir()
    assert 'holds no image' in refusal(*experiment, tmp_path / 'empty', *out)
    for name, expected in (('a.png', 'as an image'), ('a.mp4', 'as a video')):
        (tmp_path / name).write_bytes(b'no picture')
        line = refusal(*experiment, tmp_path / name, *out)
        assert f'{name} cannot be ' in line and expected in line
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    line = refusal(experiment[0], 'no.pth', tmp_path / 'a.png', *out)
    assert 'checkpoint no.pth does not exist' in line
    line = refusal(*experiment, tmp_path / 'a.png', *out, '--pixel', 37, 0)
    assert 'pixel 37 0 lies outside of the image, 37 wide and 25 high' in line
    cv2.imwrite(str(tmp_path / 'empty/a.png'), picture())
    cv2.imwrite(str(tmp_path / 'empty/a.jpg'), picture())
    assert '2 images are called' in refusal(*experiment, tmp_path / 'empty', *out)


def test_another_models_checkpoint_is_refused_with_its_keys(experiment, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    torch.save({'foreign.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    arguments = (tmp_path / 'other.pth', tmp_path / 'a.png', '--out', tmp_path / 'out')
    line = refusal(experiment[0], *arguments)
    assert 'other.pth is a checkpoint of another model' in line and 'foreign.weight' in line


@pytest.mark.parametrize('segmentor', ['EncoderDecoder', 'WindowedEncoderDecoder'])
@pytest.mark.parametrize('option', [('--explain',), ('--pixel', 3, 3)])
def test_a_model_that_cannot_explain_says_so(option, segmentor, tmp_path):
    experiment = write_experiment(tmp_path, type=segmentor)
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    line = refusal(*experiment, tmp_path / 'a.png', '--out', tmp_path / 'out', *option)
    assert f'{segmentor} with FCNHead has no maps' in line


def test_a_model_that_explains_no_single_pixel_says_so(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(MODELS.get('TinyExplainer'), 'explains_pixels', False)
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    arguments = (tmp_path / 'a.png', '--out', tmp_path / 'out', '--pixel', 3, 3)
    assert 'does not explain single pixels' in refusal(*experiment, *arguments)


def test_a_head_that_explains_the_image_alone_says_so_of_a_pixel(tmp_path, monkeypatch):
    def explain(self, levels, *, point=None, label=None, **side_inputs):
        return dict(level=levels[0])

    monkeypatch.setattr(MODELS.get('FCNHead'), 'explain', explain, raising=False)
    monkeypatch.setattr(MODELS.get('FCNHead'), 'explains_pixels', False, raising=False)
    experiment = write_experiment(tmp_path, type='WindowedEncoderDecoder')
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    arguments = (tmp_path / 'a.png', '--out', tmp_path / 'out')
    main(*experiment, *arguments, '--explain')
    assert 'explain/a.png' in files(tmp_path / 'out')
    line = refusal(*experiment, *arguments, '--pixel', 3, 3)
    assert 'WindowedEncoderDecoder with FCNHead does not explain single pixels' in line


def test_a_pipe_is_refused_and_not_waited_for(experiment, tmp_path):
    folder = tmp_path / 'in'
    (folder / 'folder.png').mkdir(parents=True)
    cv2.imwrite(str(folder / 'folder.png/a.png'), picture())
    main(*experiment, folder, '--out', tmp_path / 'out')
    assert 'mask/folder.png/a.png' in files(tmp_path / 'out')
    os.mkfifo(folder / 'pipe.png')
    line = refusal(*experiment, folder, '--out', tmp_path / 'out')
    assert f'{folder}/pipe.png is named like an image and is no file' in line
    line = refusal(*experiment, folder / 'pipe.png', '--out', tmp_path / 'out')
    assert f'{folder}/pipe.png is no file: give an image' in line
