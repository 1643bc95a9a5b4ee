"""Sliding windows against the host's, what heads learn of their place, and what parts explain."""

import copy
import functools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.inference.explain import explain_batch
from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder
from tests.inference.tiny_explainer import model_config
from tests.tiny import build, make_batch, small_hrnet, total_loss

LEVELS = dict(in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3])
HEAD = dict(
    channels=8, num_classes=5, input_transform='resize_concat', norm_cfg=dict(type='BN'), **LEVELS
)


@MODELS.register_module()
class PlacedHead(BaseDecodeHead):
    """Adds to its features the row of the whole image that the window begins with."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked: list[tuple[list[dict], tuple[int, int]]] = []

    def side_inputs(self, metas: list[dict], size: tuple[int, int]) -> dict[str, Tensor]:
        self.asked.append((metas, size))
        tops = [meta.get('window', meta.get('first', (0,)))[0] for meta in metas]
        return dict(top=torch.tensor(tops, dtype=torch.float32))

    def forward(self, inputs: list[Tensor], top: Tensor) -> Tensor:
        x = self._transform_inputs(inputs)
        return self.cls_seg(x[:, : self.channels] + top[:, None, None, None])

    def loss(self, inputs: list[Tensor], batch_data_samples: list, train_cfg: Any) -> dict:
        metas = [sample.metainfo for sample in batch_data_samples]
        logits = self.forward(inputs, **self.side_inputs(metas, metas[0]['img_shape']))
        return self.loss_by_feat(logits, batch_data_samples)

    def predict(self, inputs: list[Tensor], batch_img_metas: list[dict], test_cfg: Any) -> Tensor:
        sides = self.side_inputs(batch_img_metas, batch_img_metas[0]['img_shape'])
        return self.predict_by_feat(self.forward(inputs, **sides), batch_img_metas)

    explains_pixels = True

    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: tuple[float, float] | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> dict[str, Tensor]:
        maps = dict(level=levels[1], top=side_inputs['top'][:, None, None, None])
        if point is not None:
            here = torch.zeros_like(levels[0][:, :1])
            here[..., int(point[1] * here.shape[2]), int(point[0] * here.shape[3])] = 1
            maps['here'] = here
        return maps if label is None else dict(maps, label=label)


@MODELS.register_module()
class ExplainingHRNet(MODELS.get('HRNetExact')):  # type: ignore[misc]
    def explain(self, inputs: Tensor) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        return self.forward(inputs), dict(of_backbone=inputs)


@MODELS.register_module()
class ExplainingNeck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        self.calls += 1
        return inputs

    def explain(self, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        return self.forward(inputs), dict(of_neck=inputs[0])


def model(
    head: str | dict = 'FCNHead',
    *,
    segmentor: str = 'WindowedEncoderDecoder',
    backbone: str = 'HRNetExact',
    neck: dict | None = None,
    **test_cfg: Any,
) -> nn.Module:
    decode_head = head if isinstance(head, dict) else dict(HEAD, type=head)
    if segmentor == 'HMSA':
        decode_head = dict(type='HMSAHead', head=decode_head, attention_channels=8, num_classes=5)
    backbone_cfg = dict(type=backbone, extra=small_hrnet(), norm_cfg=dict(type='BN'))
    cfg = dict(type=segmentor, backbone=backbone_cfg, neck=neck, decode_head=decode_head)
    built = build(cfg | dict(test_cfg=test_cfg or dict(mode='whole'))).eval()
    nn.init.normal_(built.decode_head.conv_seg.weight)
    return built


def slide(built: nn.Module, **test_cfg: Any) -> nn.Module:
    """The same weights, tested by windows."""
    built = copy.copy(built)
    built.test_cfg = ConfigDict(dict(mode='slide', crop_size=(48, 64), stride=(32, 44)) | test_cfg)
    return built


def images(*size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(3))


def metas(count: int, *size: int) -> list[dict]:
    return [
        dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[1] * 4, name=i)
        for i in range(count)
    ]


@functools.cache
def shared() -> nn.Module:
    return model()


@pytest.fixture
def plain() -> nn.Module:
    return copy.deepcopy(shared())


# Windows


@torch.no_grad()
@pytest.mark.parametrize('per_batch', [None, 1, 4, 100])
@pytest.mark.parametrize('size', [(48, 64), (65, 97), (49, 200), (100, 64)], ids=str)
def test_windows_give_the_logits_of_the_host(plain, size, per_batch) -> None:
    windowed, x = slide(plain.double(), windows_per_batch=per_batch), images(*size).double()
    expected = EncoderDecoder.slide_inference(windowed, x, metas(2, *size))
    ours = windowed.slide_inference(x, metas(2, *size))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(('stride', 'crop'), [((48, 64), (48, 64)), ((7, 5), (33, 47))], ids=str)
def test_strides_from_a_few_pixels_to_the_whole_crop(plain, stride, crop) -> None:
    windowed = slide(plain.double(), stride=stride, crop_size=crop, windows_per_batch=16)
    x = images(60, 90).double()
    expected = EncoderDecoder.slide_inference(windowed, x, metas(2, 60, 90))
    ours = windowed.slide_inference(x, metas(2, 60, 90))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize('size', [(30, 50), (30, 97), (65, 1), (1, 1)], ids=str)
def test_images_smaller_than_the_crop_are_padded_with_the_mean_colour(plain, size) -> None:
    windowed, x = slide(plain), images(*size)
    padded = torch.zeros(2, 3, max(48, size[0]), max(64, size[1]))
    padded[..., : size[0], : size[1]] = x
    expected = windowed.slide_inference(padded, metas(2, *padded.shape[2:]))
    logits = windowed.slide_inference(x, metas(2, *size))
    assert logits.shape == (2, 5, *size)
    torch.testing.assert_close(logits, expected[..., : size[0], : size[1]], rtol=0, atol=0)


@torch.no_grad()
def test_a_batch_holds_no_more_windows_than_asked(plain, monkeypatch) -> None:
    counts: list[int] = []
    whole = EncoderDecoder.encode_decode

    def watch(self, inputs: Tensor, metas: list[dict]) -> Tensor:
        assert len(metas) == len(inputs)
        counts.append(len(inputs))
        return whole(self, inputs, metas)

    monkeypatch.setattr(EncoderDecoder, 'encode_decode', watch)
    slide(plain, windows_per_batch=5).slide_inference(images(65, 97), metas(2, 65, 97))
    slide(plain).slide_inference(images(65, 97), metas(2, 65, 97))
    assert counts == [5, 3] + [1] * 8


@torch.no_grad()
def test_bf16_sums_its_windows_in_float32(plain) -> None:
    windowed = slide(plain, stride=(8, 8), windows_per_batch=8)
    expected = windowed.slide_inference(images(65, 97), metas(2, 65, 97))
    with torch.autocast('cpu', torch.bfloat16):
        autocast = windowed.slide_inference(images(65, 97), metas(2, 65, 97))
    half = copy.deepcopy(windowed).bfloat16()
    low = half.slide_inference(images(65, 97).bfloat16(), metas(2, 65, 97))
    for logits in (autocast, low):
        assert logits.dtype == torch.float32
        assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_every_window_knows_its_image_and_its_place() -> None:
    windowed = slide(model('PlacedHead'), windows_per_batch=3)
    given = metas(2, 65, 50)
    windowed.slide_inference(images(65, 50), given)
    assert given == metas(2, 65, 50)  # the host changes them
    seen = [meta for metas, _ in windowed.decode_head.asked for meta in metas]
    assert [(m['name'], m['window']) for m in seen] == [
        (i, (top, 0)) for i in range(2) for top in (0, 17)
    ]
    for meta in seen:
        assert meta['img_shape'] == meta['pad_shape'] == (48, 64)
        assert meta['window_of'] == (65, 50) and meta['padding_size'] == [0] * 4


@torch.no_grad()
def test_the_padding_of_the_batch_is_no_part_of_the_image() -> None:
    windowed = slide(model('PlacedHead'))
    given = [dict(meta, pad_shape=(80, 64)) for meta in metas(1, 65, 50)]
    windowed.slide_inference(images(80, 64, count=1), given)
    seen = [meta for metas, _ in windowed.decode_head.asked for meta in metas]
    assert [(m['window'], m['window_of']) for m in seen] == [
        ((0, 0), (65, 50)),
        ((32, 0), (65, 50)),
    ]


@torch.no_grad()
def test_predicting_without_data_samples_slides_too(plain) -> None:
    results = slide(plain).predict(images(65, 97))
    assert [r.seg_logits.data.shape for r in results] == [(5, 65, 97)] * 2


@pytest.mark.parametrize(
    ('test_cfg', 'sentence'),
    [
        (dict(mode='slid'), "mode='slid': give 'slide' or 'whole'"),
        (dict(), r'needs crop_size=\(h, w\) and stride=\(h, w\) in pixels, got crop_size=None'),
        (dict(crop_size=(8, 8)), 'got crop_size=.8, 8. and stride=None'),
        (dict(crop_size=8, stride=(8, 8)), 'got crop_size=8'),
        (dict(crop_size=(8, 8), stride=(0, 8)), r'stride=\(0, 8\)'),
        (dict(crop_size=(8, 8), stride=(8, 9)), r'stride=\(8, 9\) leaves gaps'),
        (dict(crop_size=(8, 8), stride=(8, 8), windows_per_batch=0), 'windows_per_batch=0 must'),
    ],
    ids=str,
)
@pytest.mark.parametrize('segmentor', ['WindowedEncoderDecoder', 'HMSA'])
def test_windows_that_cannot_be_are_refused_when_built(test_cfg, sentence, segmentor) -> None:
    with pytest.raises(ValueError, match=sentence):
        model(segmentor=segmentor, **dict(mode='slide') | test_cfg)


def test_a_training_image_without_a_label_is_refused(plain) -> None:
    with pytest.raises(ValueError, match='has no label: put LoadAnnotations'):
        plain.loss(images(64, 96), [SegDataSample()] * 2)


@torch.no_grad()
def test_whole_images_compile_and_export() -> None:
    plain, x = build(model_config(type='WindowedEncoderDecoder')).eval(), images(64, 96)
    compiled = torch.compile(plain, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(x), plain(x))
    batch = torch.export.Dim('batch', min=1)
    exported = torch.export.export(plain, (x,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(x[:1]), plain(x[:1]))


# Side inputs


@torch.no_grad()
def test_a_head_gets_its_side_inputs_in_every_mode() -> None:
    placed, (x, samples) = model('PlacedHead'), make_batch(plain_model := model('PlacedHead'))
    samples[1].set_metainfo(dict(first=(7,)))
    rise = 7 * placed.decode_head.conv_seg.weight.sum(1)
    low, high = placed._forward(x, samples) - placed._forward(x)
    assert not low.any()
    torch.testing.assert_close(high, rise.expand_as(high), rtol=1e-4, atol=1e-4)
    assert placed.decode_head.asked[-1] == ([{}, {}], (65, 97))
    low, high = (r.seg_logits.data for r in placed.predict(x, samples))
    expected = plain_model.predict(x)
    torch.testing.assert_close(low, expected[0].seg_logits.data)
    torch.testing.assert_close(high, expected[1].seg_logits.data + rise, rtol=1e-4, atol=1e-4)
    assert total_loss(placed, (x, samples)).isfinite()


def test_hmsa_asks_once_and_tells_every_scale() -> None:
    hmsa = model('PlacedHead', segmentor='HMSA')
    head = hmsa.decode_head.head
    x, samples = make_batch(hmsa, size=(64, 96))
    samples[1].set_metainfo(dict(first=(7,)))
    tops: list[list[float]] = []
    head.register_forward_pre_hook(
        lambda _, args, kwargs: tops.append(kwargs['top'].tolist()), with_kwargs=True
    )
    hmsa.loss(x, samples)
    assert tops == [[0.0, 7.0]] * 2
    hmsa.predict(x, samples)
    hmsa._forward(x, samples)
    hmsa.explain(x, samples)
    assert tops == [[0.0, 7.0]] * (2 + 3 * 3)
    assert [size for _, size in head.asked] == [(64, 96)] * 5  # explain: its scales and its head


@torch.no_grad()
def test_hmsa_tells_every_window_its_place() -> None:
    hmsa = slide(model('PlacedHead', segmentor='HMSA'), windows_per_batch=2)
    hmsa.predict(images(65, 64))
    seen = [meta['window'] for metas, _ in hmsa.decode_head.head.asked for meta in metas]
    assert seen == [(0, 0), (17, 0)] * 2


def test_an_error_that_is_not_of_the_levels_stays_as_it_is(plain) -> None:
    plain.train()
    plain.decode_head.cls_seg = mock.Mock(side_effect=RuntimeError('out of luck'))
    with pytest.raises(RuntimeError, match='out of luck'):
        plain(images(64, 96))
    assert plain.backbone.training


@torch.no_grad()
@pytest.mark.parametrize('segmentor', ['WindowedEncoderDecoder', 'HMSA'])
def test_rows_of_hanet_follow_their_windows(segmentor) -> None:
    gates = dict(attention=dict(rows=8))
    head = dict(type='HANetHead', channels=8, low_channels=4, num_classes=5, **gates, **LEVELS)
    built = slide(model(head, segmentor=segmentor), crop_size=(32, 64), stride=(16, 64))
    seen: list[list[int]] = []
    getattr(built.decode_head, 'head', built.decode_head).register_forward_pre_hook(
        lambda _, args, kwargs: seen.extend(kwargs['row_index'].tolist()), with_kwargs=True
    )
    for height, expected in (
        (64, [[0, 0, 1, 1, 2, 2, 3, 3], [2, 2, 3, 3, 4, 4, 5, 5], [4, 4, 5, 5, 6, 6, 7, 7]]),
        (16, [[0, 2, 4, 6, 8, 8, 8, 8]]),  # half of the window is padding
    ):
        seen.clear()
        built.predict(images(height, 64, count=1))
        scales = 3 if segmentor == 'HMSA' else 1
        assert seen == [rows for rows in expected for _ in range(scales)]


# Explain


def test_a_head_explains_with_point_and_label() -> None:
    placed = model('PlacedHead')
    x, samples = make_batch(placed, size=(64, 96))
    samples[1].set_metainfo(dict(first=(7,)))
    maps = placed.explain(x, samples, pixel=(95, 4))
    assert set(maps) == {'level', 'top', 'here', 'label'}
    assert maps['here'][0, 0].nonzero().tolist() == [[1, 23]]
    assert maps['top'].flatten().tolist() == [0, 7]
    assert torch.equal(maps['label'], torch.stack([s.gt_sem_seg.data for s in samples]))
    assert set(placed.explain(x)) == {'level', 'top'}
    assert placed.explains and placed.explains_pixels


def test_every_pixel_is_its_own_cell_where_there_is_one_for_each() -> None:
    placed = model('PlacedHead')
    for width in (64, 100, 116):
        x = torch.zeros(1, 3, 8, width)
        for column in (0, 7, 29, 57, width - 1):
            here = placed.explain_head([x, x], x, None, (column, 3))['here']
            assert here[0, 0].nonzero().tolist() == [[3, column]]


def test_a_label_of_the_files_size_covers_the_input_without_its_padding() -> None:
    placed = model('PlacedHead')
    label = torch.tensor([[0, 1, 2], [3, 4, 0]]).repeat_interleave(64, 0).repeat_interleave(64, 1)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
    sample.set_metainfo(dict(img_padding_size=(0, 32, 0, 16)))
    shown = placed.explain(torch.zeros(1, 3, 80, 128), [sample])['label']
    assert shown.dtype == label.dtype and shown.shape == (1, 1, 80, 128)
    assert torch.equal(shown[0, 0, :64, :96], label[::2, ::2])
    assert (shown[..., 64:, :] == 255).all() and (shown[..., 96:] == 255).all()


def test_backbone_and_neck_that_explain_are_asked_instead_of_run() -> None:
    asked = model('PlacedHead', backbone='ExplainingHRNet', neck=dict(type='ExplainingNeck'))
    asked.neck.calls = 0  # it ran when the model was built
    x = images(64, 96)
    maps = asked.explain(x)
    assert list(maps) == ['of_backbone', 'of_neck', 'level', 'top']
    assert torch.equal(maps['level'], asked.backbone(x)[1]) and asked.neck.calls == 1


def test_a_model_with_nothing_to_explain_says_so(plain) -> None:
    assert isinstance(plain, WindowedEncoderDecoder) and not plain.explains
    assert plain.explain(images(64, 96)) == {}
    with pytest.raises(ValueError, match='FCNHead does not explain single pixels'):
        plain.explain(images(64, 96), pixel=(3, 4))


@torch.no_grad()
def test_hmsa_adds_the_maps_of_its_head() -> None:
    hmsa = model('PlacedHead', segmentor='HMSA')
    own = set(model(segmentor='HMSA').explain(images(64, 96)))
    assert {'scale_weight', 'attention_1'} < own
    maps = hmsa.explain(images(64, 96), pixel=(3, 4))
    assert set(maps) == own | {'level', 'top', 'here'}
    assert torch.equal(maps['level'], hmsa.extract_feat(images(64, 96))[1])
    assert hmsa.explains and hmsa.explains_pixels
    assert not model(segmentor='HMSA').explains_pixels


def test_a_table_keeps_its_column_where_most_of_the_input_is_padding() -> None:
    class Table(nn.Module):
        explains, explains_pixels = True, False

        def explain(
            self,
            inputs: Tensor,
            data_samples: list | None = None,
            pixel: tuple[int, int] | None = None,
        ) -> dict[str, Tensor]:
            return dict(table=torch.rand(1, 6, 16, 1))

    sample = SegDataSample(metainfo=dict(padding_size=(0, 60, 0, 32)))
    (maps,) = explain_batch(Table(), torch.zeros(1, 3, 64, 80), [sample])
    assert maps['table'].shape == (6, 8, 1)
