"""Averaging of logits over augmentations, against the sum written out by hand."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from tests.inference.tiny_explainer import model_config

SIZE = (7, 9)


def build(num_classes: int, out_channels: int | None = None) -> torch.nn.Module:
    model = model_config(num_classes, out_channels, data_preprocessor=None)
    preprocessor = dict(type='SegDataPreProcessor')
    return MODELS.build(
        dict(type='LogitTTAModel', module=model, data_preprocessor=preprocessor)
    ).eval()


def augment(image: torch.Tensor, flip: bool, size: tuple[int, int]) -> dict:
    """What one branch of TestTimeAug packs."""
    resized = F.interpolate(image[None], size, mode='bilinear', align_corners=False)[0]
    sample = SegDataSample(
        metainfo=dict(
            ori_shape=SIZE,
            img_shape=size,
            pad_shape=size,
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
    )
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *SIZE, dtype=torch.long))
    return dict(inputs=resized.flip(-1) if flip else resized, data_samples=sample)


def collate(branches: list[list[dict]]) -> dict:
    """[augmentation][image] of dicts to a dict of [augmentation][image]."""
    return {key: [[item[key] for item in branch] for branch in branches] for key in branches[0][0]}


def by_hand(model: torch.nn.Module, image: torch.Tensor, branches: list) -> torch.Tensor:
    """The mean of raw logits, every step written out; (C, H, W)."""
    total = 0
    for flip, size in branches:
        x = augment(image, flip, size)['inputs'][None]
        logits = model.encode_decode(x, [dict(img_shape=size, ori_shape=SIZE)])
        logits = logits.flip(-1) if flip else logits
        total = total + F.interpolate(logits, SIZE, mode='bilinear', align_corners=False)[0]
    return total / len(branches)


BRANCHES = [(False, SIZE), (True, SIZE), (False, (14, 18)), (True, (14, 18)), (False, (5, 6))]


@pytest.mark.parametrize('classes', [5, 2])
@torch.no_grad()
def test_the_result_is_the_mean_of_flipped_back_and_resized_logits(classes):
    tta = build(classes)
    images = [torch.randn(3, *SIZE) for _ in range(2)]
    data = collate([[augment(image, *branch) for image in images] for branch in BRANCHES])
    results = tta.test_step(data)
    for image, result in zip(images, results, strict=True):
        expected = by_hand(tta.module, image, BRANCHES)
        torch.testing.assert_close(result.seg_logits.data, expected)
        assert torch.equal(result.pred_sem_seg.data, expected.argmax(0, keepdim=True))
        assert result.flip is False and 'gt_sem_seg' in result


@torch.no_grad()
def test_one_output_channel_is_averaged_before_its_sigmoid():
    tta = build(2, out_channels=1)
    image = torch.randn(3, *SIZE) * 3
    result = tta.test_step(collate([[augment(image, *branch)] for branch in BRANCHES[:2]]))[0]
    expected = by_hand(tta.module, image, BRANCHES[:2]).sigmoid()
    torch.testing.assert_close(result.seg_logits.data, expected, atol=1e-5, rtol=0)
    assert torch.equal(result.pred_sem_seg.data, (expected > 0.5).float())


def test_certain_pixels_of_one_channel_stay_finite():
    tta = build(2, out_channels=1)
    sure = [SegDataSample(seg_logits=PixelData(data=torch.full((1, 2, 2), p))) for p in (0.0, 1.0)]
    result = tta.merge_preds([sure])[0]
    assert torch.allclose(result.seg_logits.data, torch.tensor(0.5), atol=0.1)


def test_logits_are_averaged_and_not_probabilities():
    # One sure vote for class 0 beats two lukewarm ones for class 1 as logits, not as probabilities.
    votes = [torch.tensor([9.0, 0.0])] + [torch.tensor([0.0, 3.0])] * 2
    samples = [SegDataSample(seg_logits=PixelData(data=v.view(2, 1, 1))) for v in votes]
    assert sum(v.softmax(0) for v in votes).argmax() == 1
    assert build(2).merge_preds([samples])[0].pred_sem_seg.data.item() == 0


@torch.no_grad()
def test_only_the_sum_outlives_an_augmentation():
    tta = build(3)
    image = torch.randn(3, *SIZE)
    data = collate([[augment(image, *branch)] for branch in BRANCHES])
    tta.test_step(data)
    assert all('seg_logits' not in branch[0] for branch in data['data_samples'][1:])
