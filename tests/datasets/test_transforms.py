import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_ext.datasets.transforms import (
    ColorJitter,
    LoadSegMap,
    RandomScaleCrop,
    crop_start,
    crop_window,
    without_label_transforms,
)


def build(**cfg):
    return TRANSFORMS.build(cfg)


def sample(size, seed=0, **extra):
    """Smooth colours and blocks of labels, as after loading."""
    rng = np.random.default_rng(seed)
    h, w = size
    img = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (w, h))
    label = cv2.resize(
        rng.integers(0, 5, (9, 9), np.uint8), (w, h), interpolation=cv2.INTER_NEAREST
    )
    return dict(
        img=img,
        gt_seg_map=label,
        seg_fields=['gt_seg_map'],
        ori_shape=size,
        img_shape=size,
        **extra,
    )


@pytest.fixture
def files(tmp_path):
    """Writes an image and a label; gives the keys that a data set gives."""

    def write(label, size=(20, 30), label_map=None, reduce_zero_label=False, num_classes=3):
        image_path, label_path = str(tmp_path / 'a.png'), str(tmp_path / 'a_label.png')
        cv2.imwrite(image_path, np.zeros((*size, 3), np.uint8))
        cv2.imwrite(label_path, label)
        return dict(
            img_path=image_path,
            seg_map_path=label_path,
            seg_fields=[],
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            num_classes=num_classes,
        )

    return write


def load(info):
    return build(type='LoadSegMap')(build(type='LoadImage')(info))


def values(*rows):
    label = np.zeros((20, 30), np.uint8)
    label.ravel()[: len(rows)] = rows
    return label


@pytest.mark.parametrize('broken', ['empty', 'garbage', 'half'])
@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_a_broken_file_is_named(files, broken, key):
    info = files(np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8))
    path = Path(info[key])
    data = path.read_bytes()
    content = {'empty': b'', 'garbage': b'no image' * 50, 'half': data[: len(data) // 2]}[broken]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path} cannot be decoded as an? (image|label)'):
        load(info)


@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_a_file_that_vanished_is_named(files, key):
    info = files(values())
    info[key] = info[key] + '.gone'
    with pytest.raises(FileNotFoundError, match=r'\.gone'):
        load(info)


@pytest.mark.parametrize(
    ('label', 'message'),
    [
        (np.zeros((20, 30, 3), np.uint8), r'has shape \(20, 30, 3\): a label needs one channel'),
        (np.full((20, 30), 300, np.uint16), 'holds values from 300 to 300'),
        (np.zeros((20, 31), np.uint8), 'a_label.png is 31x20 and its image .*a.png is 30x20'),
        (values(0, 1, 200), 'a_label.png holds the value 200, .* classes 0 to 2'),
    ],
)
def test_a_wrong_label_is_named(files, label, message):
    with pytest.raises(ValueError, match=message):
        load(files(label))


def test_labels_are_mapped_as_by_the_host(files):
    label = np.arange(600).reshape(20, 30) % 7
    for label_map in (None, {0: 2, 1: 255, 5: 0}):
        for reduce_zero_label in (False, True):
            info = files(label.astype(np.uint8), (20, 30), label_map, reduce_zero_label, 7)
            ours = build(type='LoadSegMap')(dict(info, seg_fields=[]))
            hosts = build(type='LoadAnnotations')(dict(info, seg_fields=[]))
            np.testing.assert_array_equal(ours['gt_seg_map'], hosts['gt_seg_map'])
            assert ours['seg_fields'] == hosts['seg_fields']


def test_the_values_of_palette_and_16_bit_files_are_kept(files, tmp_path):
    label = values(0, 1, 2, 255)
    coloured = Image.fromarray(label).convert('P')
    coloured.putpalette([9, 8, 7] * 256)
    info = files(label.astype(np.uint16))
    for path in (info['seg_map_path'], str(tmp_path / 'palette.png')):
        if 'palette' in path:
            coloured.save(path)
        result = build(type='LoadSegMap')(dict(info, seg_map_path=path, seg_fields=[]))
        assert result['gt_seg_map'].dtype == np.uint8
        np.testing.assert_array_equal(result['gt_seg_map'], label)


@pytest.mark.parametrize('size', [(40, 60), (97, 131), (25, 200)])
def test_the_crop_is_a_window_of_the_padded_resized_image(size):
    """Against the slow form: resize, pad both sides, cut."""
    crop_size = (64, 80)
    for seed in range(10):
        np.random.seed(seed)
        results = RandomScaleCrop(crop_size)(sample(size, seed))
        np.random.seed(seed)
        scale = np.random.uniform(0.5, 2)
        h, w = int(size[0] * scale), int(size[1] * scale)
        plain = sample(size, seed)
        img = cv2.resize(plain['img'], (w, h), interpolation=cv2.INTER_CUBIC)
        rows = ((np.arange(h) + 0.5) * size[0] / h).astype(int)
        columns = ((np.arange(w) + 0.5) * size[1] / w).astype(int)
        label = plain['gt_seg_map'][rows][:, columns]
        pad_y = (crop_size[0] - h) // 2 + 1 if h < crop_size[0] else 0
        pad_x = (crop_size[1] - w) // 2 + 1 if w < crop_size[1] else 0
        img = np.pad(img, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)))
        label = np.pad(label, ((pad_y, pad_y), (pad_x, pad_x)), constant_values=255)
        y = np.random.randint(0, h + 2 * pad_y - crop_size[0] + 1)
        x = np.random.randint(0, w + 2 * pad_x - crop_size[1] + 1)
        window = slice(y, y + crop_size[0]), slice(x, x + crop_size[1])
        np.testing.assert_array_equal(results['img'], img[window])
        np.testing.assert_array_equal(results['gt_seg_map'], label[window])
        assert results['img_shape'] == crop_size


@pytest.mark.parametrize('prepare', ['nothing', 'flip', 'resize', 'resize and flip'])
@pytest.mark.parametrize('size', [(60, 90), (240, 180)])
def test_every_crop_holds_its_centre(size, prepare):
    """Over scales, flips, padding and places; the centre is the only block of its class."""
    crop = RandomScaleCrop((96, 96))
    rng = np.random.default_rng(0)
    for seed in range(60):
        np.random.seed(seed)
        x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
        results = sample(size, crop_center=(x, y))
        # Two to each side, so that the class survives a reduction to a quarter.
        results['gt_seg_map'][max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 77
        if 'resize' in prepare:
            scale = (size[1] // 2, size[0] // 2) if seed % 2 else (size[1] * 2, size[0] * 2)
            results = build(type='Resize', scale=scale)(results)
        if 'flip' in prepare:
            direction = ('horizontal', 'vertical', 'diagonal')[seed % 3]
            results = build(type='RandomFlip', prob=1.0, direction=direction)(results)
        results = crop(results)
        assert 77 in results['gt_seg_map'], (seed, x, y)
        assert 'crop_center' not in results


def test_a_crop_of_one_pixel_is_the_very_pixel_of_its_centre():
    size = (50, 70)
    for seed in range(60):
        np.random.seed(seed)
        x, y = seed % size[1], (7 * seed) % size[0]
        results = sample(size, crop_center=(x, y))
        results['gt_seg_map'][y, x] = 77
        results = RandomScaleCrop((1, 1), ratio_range=(1.0, 2.0))(results)
        assert results['gt_seg_map'].tolist() == [[77]], (seed, x, y)


@pytest.mark.parametrize(('length', 'crop'), [(100, 40), (40, 40), (30, 40), (39, 40)])
def test_starts_reach_every_allowed_place_and_no_other(length, crop):
    pad = (crop - length) // 2 + 1 if length < crop else 0
    allowed = range(-pad, length + pad - crop + 1)
    assert {crop_start(length, crop) for _ in range(3000)} == set(allowed)
    for center in (0, length // 2, length - 1):
        starts = {crop_start(length, crop, center) for _ in range(3000)}
        assert starts == {s for s in allowed if s <= center < s + crop}


def test_a_centre_near_the_border_gives_more_crops_at_the_border():
    """31 of the 40 crops that hold pixel 9 reach beyond the border and are moved to it."""
    starts = np.bincount([crop_start(100, 40, 9) for _ in range(8000)], minlength=10) / 8000
    np.testing.assert_allclose(starts, [31 / 40] + [1 / 40] * 9, atol=0.02)


def test_what_lies_outside_of_the_image_is_filled():
    array = np.arange(12).reshape(3, 4)
    window = crop_window(array, (-1, 2), (3, 4), fill=-7)
    assert window.tolist() == [[-7] * 4, [2, 3, -7, -7], [6, 7, -7, -7]]


def jitter(img, **spread):
    off = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    return build(type='ColorJitter', **{**off, **spread})(dict(img=img))['img']


def test_jitter_of_nothing_changes_nothing_but_the_rounding_of_hue():
    img = sample((40, 50))['img']
    assert np.abs(jitter(img).astype(int) - img).max() <= 6


@pytest.mark.parametrize('kind', ['brightness', 'contrast', 'saturation', 'hue'])
def test_each_jitter_changes_what_it_is_named_for(kind, monkeypatch):
    img = sample((40, 50))['img'] // 2 + 50  # nothing saturates
    monkeypatch.setattr(np.random, 'uniform', lambda low, high: high)
    before = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).astype(float)
    changed = jitter(img, **{kind: 0.25})
    grey = cv2.cvtColor(changed, cv2.COLOR_BGR2GRAY).astype(float)
    if kind == 'brightness':
        assert grey.mean() == pytest.approx(1.25 * before.mean(), rel=0.01)
    elif kind == 'contrast':
        assert grey.mean() == pytest.approx(before.mean(), rel=0.01)
        assert grey.std() == pytest.approx(1.25 * before.std(), rel=0.02)
    elif kind == 'saturation':
        np.testing.assert_allclose(grey, before, atol=3)
        spread = np.ptp(img.astype(int), axis=2).mean()
        assert np.ptp(changed.astype(int), axis=2).mean() == pytest.approx(1.25 * spread, rel=0.03)
    else:
        hue = cv2.cvtColor(np.array([[[0, 0, 200]]], np.uint8), cv2.COLOR_BGR2HSV_FULL)[0, 0, 0]
        red = np.full((2, 2, 3), (0, 0, 200), np.uint8)
        turned = cv2.cvtColor(jitter(red, hue=0.25), cv2.COLOR_BGR2HSV_FULL)[0, 0, 0]
        assert int(turned) - int(hue) == pytest.approx(64, abs=2)  # a quarter of 256


def test_jitter_keeps_dark_and_bright_pixels_in_range():
    black_and_white = np.zeros((8, 8, 3), np.uint8)
    black_and_white[:4] = 255
    for seed in range(30):
        np.random.seed(seed)
        changed = build(type='ColorJitter')(dict(img=black_and_white))['img']
        assert changed[0].min() > 150  # no white turned black by wrapping around
        assert changed[-1].max() < 100


def test_blur_smooths_more_with_a_larger_sigma():
    img = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)

    def contrast(sigma):
        return build(type='RandomGaussianBlur', sigma_range=(sigma, sigma))(dict(img=img))[
            'img'
        ].std()

    assert img.std() >= contrast(0.15) > contrast(0.7) > contrast(1.3)


def test_brightness_shifts_every_image_by_a_whole_number():
    img = np.stack(np.meshgrid(np.arange(256), np.arange(3)), axis=2).astype(np.uint8)
    shifts = set()
    for _ in range(300):
        shifted = build(type='ShiftBrightness', delta=10)(dict(img=img))['img'].astype(int)
        shift = shifted[0, 100, 0] - 100
        np.testing.assert_array_equal(shifted, np.clip(img.astype(int) + shift, 0, 255))
        shifts.add(shift)
    assert shifts == set(range(-10, 11))


def test_images_are_stretched_without_a_change_of_area(monkeypatch):
    sizes = []
    resize = cv2.resize
    monkeypatch.setattr(
        cv2, 'resize', lambda x, size, **kw: sizes.append(size) or resize(x, size, **kw)
    )
    crop = build(
        type='RandomScaleCrop', crop_size=(8, 8), ratio_range=(2, 2), aspect_range=(0.9, 1.1)
    )
    for _ in range(300):
        sizes.clear()
        results = crop(dict(img=np.zeros((500, 1000, 3), np.uint8), seg_fields=[]))
        assert results['img'].shape[:2] == (8, 8)
        (w, h) = sizes[-1]
        assert 0.899 * 2 <= w / h <= 1.101 * 2
        assert abs(w * h / 2_000_000 - 1) < 0.005


def test_all_random_numbers_come_from_the_global_numpy_generator():
    """So that whoever seeds it before a sample gets the same sample again."""
    pipeline = [
        build(type='RandomScaleCrop', crop_size=(40, 40)),
        build(type='RandomFlip', prob=0.5),
        build(type='ColorJitter'),
        build(type='ShiftBrightness'),
        build(type='RandomGaussianBlur'),
    ]

    def run(seed):
        np.random.seed(seed)
        random.seed(seed)
        results = sample((60, 60))
        for transform in pipeline:
            results = transform(results)
        return results['img']

    np.testing.assert_array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (7, 1)])
def test_a_label_may_be_one_pixel_high_or_wide(tmp_path, size):
    path = str(tmp_path / 'x.png')
    assert cv2.imwrite(path, np.full(size, 3, np.uint8))
    results = LoadSegMap()(dict(seg_map_path=path, seg_fields=[], label_map=None))
    assert results['gt_seg_map'].shape == size and (results['gt_seg_map'] == 3).all()


def test_a_prediction_is_scored_at_the_size_that_is_set(tmp_path):
    image, label = tmp_path / 'a.jpg', tmp_path / 'a.png'
    cv2.imwrite(str(image), np.zeros((30, 40, 3), np.uint8))
    cv2.imwrite(str(label), np.zeros((30, 40), np.uint8))
    pipeline = [
        dict(type='LoadImage'),
        dict(type='LoadSegMap'),
        dict(type='Resize', scale=(20, 20), keep_ratio=True),
        dict(type='SetOriginalSize'),
        dict(type='PackSegInputs'),
    ]
    info = dict(img_path=str(image), seg_map_path=str(label), seg_fields=[])
    sample = Compose(pipeline)(dict(info))['data_samples']
    assert sample.ori_shape == sample.img_shape == (15, 20)
    assert sample.gt_sem_seg.shape == (15, 20)
    info.pop('seg_map_path')
    bare = without_label_transforms([*pipeline[:3], [pipeline[1]], *pipeline[3:]])
    types = [transform['type'] for transform in bare]
    assert types == ['LoadImage', 'Resize', 'SetOriginalSize', 'PackSegInputs']
    assert Compose(bare)(info)['data_samples'].ori_shape == (30, 40)


def test_a_change_of_colours_has_its_probability():
    image = np.full((6, 7, 3), 100, np.uint8)  # grey, so that brightness alone changes it
    np.random.seed(0)
    jitter = ColorJitter(brightness=0.5, contrast=0, saturation=0, hue=0, prob=0.25)
    changed = [(jitter(dict(img=image))['img'] != image).any() for _ in range(400)]
    assert 0.15 < np.mean(changed) < 0.35
    always = ColorJitter(brightness=0.5, contrast=0, saturation=0, hue=0)
    assert np.mean([(always(dict(img=image))['img'] != image).any() for _ in range(50)]) > 0.9
    never = ColorJitter(prob=0.0)
    assert (never(dict(img=image))['img'] == image).all() and 'prob=0.0' in repr(never)
