"""The multi-scale test of PyTorch-Encoding, against its steps written out window by window."""

from math import ceil
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.evaluation.encoding_tta import EncodingTTAModel
from tests.inference.tiny_explainer import model_config
from tests.tiny import CONFIG_DIR, build, shrink

BLACK = torch.full((1, 3, 1, 1), -127 / 64)  # of the tiny model's normalisation


def tta(**kwargs: Any) -> EncodingTTAModel:
    torch.manual_seed(0)
    settings = dict(base_size=40, crop_size=24) | kwargs
    return MODELS.build(dict(type='EncodingTTAModel', module=model_config(4), **settings)).eval()


def batch(size: tuple[int, int], ori_shape: tuple[int, int] | None = None) -> dict[str, list]:
    """One uint8 image as the pipeline packs it."""
    image = torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(1))
    meta = dict(img_shape=size, ori_shape=ori_shape or size, pad_shape=size)
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *meta['ori_shape'], dtype=torch.long))
    return dict(inputs=[image.to(torch.uint8)], data_samples=[sample])


def to_size(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode='bilinear', align_corners=True)


def padded(x: Tensor, size: tuple[int, int]) -> Tensor:
    """With black on the right and below, up to ``size`` where it is smaller."""
    canvas = BLACK.repeat(len(x), 1, *(max(a, b) for a, b in zip(x.shape[2:], size, strict=True)))
    canvas[..., : x.shape[2], : x.shape[3]] = x
    return canvas


def by_hand(model: EncodingTTAModel, data: dict[str, list]) -> Tensor:
    """(K, H, W) of the one image, in the released order of steps."""
    image = data['inputs'][0][[2, 1, 0]].float()[None] / 64 - 127 / 64
    h, w = image.shape[2:]
    crop, stride, total = model.crop_size[0], model.stride[0], 0

    def score(window: Tensor) -> Tensor:
        metas = [dict(img_shape=window.shape[2:])]
        logits = model.module.encode_decode(window, metas)
        if model.flip:
            logits = logits + model.module.encode_decode(window.flip(3), metas).flip(3)
        return logits.exp()

    for scale in model.scales:
        long = ceil(model.base_size * scale)
        if h > w:
            height, width = long, int(w * long / h + 0.5)
        else:
            height, width = int(h * long / w + 0.5), long
        resized = to_size(image, (height, width))
        if long <= crop:
            scores = score(padded(resized, (crop, crop)))
        else:
            whole = padded(resized, (crop, crop)) if min(height, width) < crop else resized
            ph, pw = whole.shape[2:]
            scores = torch.zeros(1, 4, ph, pw)
            visits = torch.zeros(1, 1, ph, pw)
            for y in range(ceil((ph - crop) / stride) + 1):
                for x in range(ceil((pw - crop) / stride) + 1):
                    top, left = y * stride, x * stride
                    bottom, right = min(top + crop, ph), min(left + crop, pw)
                    window = padded(whole[..., top:bottom, left:right], (crop, crop))
                    own = score(window)[..., : bottom - top, : right - left]
                    scores[..., top:bottom, left:right] += own
                    visits[..., top:bottom, left:right] += 1
            scores = scores / visits
        total = total + to_size(scores[..., :height, :width], data['data_samples'][0].ori_shape)
    return total[0]


@torch.no_grad()
@pytest.mark.parametrize('size', [(33, 47), (50, 21), (24, 24), (9, 60)], ids=str)
@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(flip=False, base_size=26, crop_size=24, stride=16),  # FastFCN's proportions
        dict(scales=(0.5, 0.75, 1.0, 1.5)),
        dict(scales=(0.5, 2.2), stride=12),  # half of the crop, as in v0.5.0 at several scales
    ],
    ids=str,
)
def test_scores_are_those_of_the_released_steps(size: tuple[int, int], settings: dict) -> None:
    model, data = tta(**settings), batch(size)
    expected = by_hand(model, data)
    result = model.test_step(data)[0]
    torch.testing.assert_close(result.seg_logits.data, expected.log(), rtol=1e-4, atol=1e-4)
    assert torch.equal(result.pred_sem_seg.data, expected.argmax(0, keepdim=True))
    assert 'gt_sem_seg' in result


@torch.no_grad()
def test_the_result_has_the_size_of_the_original_image() -> None:
    model, data = tta(), batch((20, 30), ori_shape=(41, 62))
    expected = by_hand(model, data)
    result = model.test_step(data)[0]
    assert result.pred_sem_seg.shape == (41, 62)
    torch.testing.assert_close(result.seg_logits.data, expected.log(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_number_of_windows_at_a_time_changes_nothing() -> None:
    results = [
        tta(windows_per_batch=n).test_step(batch((33, 47)))[0].seg_logits.data
        for n in (None, 1, 4, 100)
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


@torch.no_grad()
def test_windows_know_their_place_and_stay_within_the_batch_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seen = tta(base_size=60, windows_per_batch=3, flip=False), []
    encode_decode = model.module.encode_decode

    def watch(crops: Tensor, metas: list[dict]) -> Tensor:
        assert crops.shape[2:] == metas[0]['img_shape'] == (24, 24)
        seen.append([(m['window'], m['window_of']) for m in metas])
        return encode_decode(crops, metas)

    monkeypatch.setattr(model.module, 'encode_decode', watch)
    model.test_step(batch((20, 60)))
    assert [len(metas) for metas in seen] == [3, 1]
    places, images = zip(*sum(seen, []), strict=True)
    assert places == ((0, 0), (0, 16), (0, 32), (0, 48)) and set(images) == {(20, 60)}


@torch.no_grad()
def test_windows_need_not_be_square() -> None:
    model, seen = tta(crop_size=(24, 36)), []
    model.module.backbone.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[2:]))
    result = model.test_step(batch((40, 40)))[0]
    assert model.stride == (16, 24) and set(seen) == {(24, 36)}
    assert result.seg_logits.data.isfinite().all()


@torch.no_grad()
def test_sure_logits_stay_finite() -> None:
    model = tta()
    nn.init.constant_(model.module.decode_head.conv_seg.bias, 0.0)
    model.module.decode_head.conv_seg.bias[2] = 500.0
    result = model.test_step(batch((33, 47)))[0]
    assert result.seg_logits.data[2].isfinite().all()
    assert (result.pred_sem_seg.data == 2).all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(stride=(12, 25)), r'stride=\(12, 25\): .* gaps remain'),
        (dict(base_size=0), 'base_size=0'),
        (dict(scales=()), 'must hold at least one'),
        (dict(scales=(1.0, 0.0)), 'all above 0'),
        (dict(windows_per_batch=0), 'windows_per_batch=0'),
        (dict(module=model_config(2, 1)), "one output channel: use .*'LogitTTAModel'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    settings = dict(module=model_config(4), base_size=40, crop_size=24) | settings
    with pytest.raises(ValueError, match=message):
        EncodingTTAModel(**settings)


def test_augmentations_of_the_pipeline_are_refused() -> None:
    data = {key: [value, value] for key, value in batch((24, 24)).items()}
    with pytest.raises(ValueError, match='packed 2 augmentations: set tta_pipeline'):
        tta().test_step(data)


@torch.no_grad()
@pytest.mark.parametrize('name', ['danet/r101_cityscapes', 'danet/r101_ade20k'])
def test_configs_test_with_it(name: str) -> None:
    cfg = Config.fromfile(CONFIG_DIR / f'{name}.py')
    assert [step['type'] for step in cfg.tta_pipeline] == [
        'LoadImage',
        'LoadSegMap',
        'PackSegInputs',
    ]
    settings = dict(cfg.tta_model, base_size=96, crop_size=(64, 64))
    assert settings.pop('type') == 'EncodingTTAModel'
    model = EncodingTTAModel(build(shrink(cfg.model.to_dict())), **settings).eval()
    result = model.test_step(batch((40, 90)))[0]
    assert result.pred_sem_seg.shape == (40, 90)
