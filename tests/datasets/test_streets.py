import hashlib
import json
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets import CityscapesDataset

from mmseg_ext.datasets.streets import coarse_labels, draw_scene, make_streets, traffic, writer
from mmseg_ext.datasets.streets.scene import Id, Scene

TOOL = Path(__file__).parents[2] / 'tools' / 'make_streets.py'
SMALL = (64, 128)
TRAINED = [Id.ROAD, Id.SIDEWALK, Id.BUILDING, Id.WALL, Id.FENCE, Id.POLE, Id.LIGHT, Id.SIGN]
TRAINED += [Id.VEGETATION, Id.TERRAIN, Id.SKY, Id.PERSON, Id.RIDER, Id.CAR, Id.TRUCK, Id.BUS]
TRAINED += [Id.TRAIN, Id.MOTORCYCLE, Id.BICYCLE]


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())


@pytest.fixture(scope='module')
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'streets'
    assert make_streets(root, num_train=4, num_val=2, num_extra=3, size=SMALL, progress=False)
    return root


@pytest.fixture(scope='module')
def val_labels():
    """The labels of the validation set that the defaults draw."""
    return [draw_scene(f'0 val {i}').label for i in range(100)]


def test_a_seed_gives_the_same_pixels_as_ever():
    # Where this fails on purpose, raise writer.VERSION.
    digest, objects = hashlib.sha256(), hashlib.sha256()
    for seed, size in ((0, (256, 512)), ('0 train 1', (256, 512)), ('0 val 2', (101, 203))):
        drawing = draw_scene(seed, size)
        for array in (drawing.image, drawing.label):
            digest.update(array.tobytes())
        objects.update(drawing.instance_ids.tobytes())
    assert digest.hexdigest()[:16] == '0623e6128738d085'
    assert objects.hexdigest()[:16] == '1e4c1cb3d1001ed5'


def test_the_folder_is_laid_out_as_cityscapes(streets):
    names = files(streets)
    kinds = Counter(re.sub(r'(/[a-z]+)?/[a-z]+_\d{6}_000019_', ' ', name) for name in names)
    assert kinds == {
        'leftImg8bit/train leftImg8bit.png': 4,
        'leftImg8bit/val leftImg8bit.png': 2,
        'leftImg8bit/train_extra leftImg8bit.png': 3,
        'gtFine/train gtFine_labelIds.png': 4,
        'gtFine/train gtFine_instanceIds.png': 4,
        'gtFine/val gtFine_labelIds.png': 2,
        'gtFine/val gtFine_instanceIds.png': 2,
        'annotations/panoptic_train leftImg8bit.png': 4,
        'annotations/panoptic_val leftImg8bit.png': 2,
        'annotations/panoptic_train.json': 1,
        'annotations/panoptic_val.json': 1,
        'annotations/instances_train.json': 1,
        'annotations/instances_val.json': 1,
        'gtCoarse/train_extra gtCoarse_labelIds.png': 3,
        'streets.json': 1,
    }
    for name in names:
        if name.endswith('.png'):
            folder, _, city = name.split('/')[:3]
            assert Path(name).name.startswith(f'{city}_') or folder == 'annotations'
            assert read(streets / name).shape == (SMALL if folder[:2] == 'gt' else (*SMALL, 3))


def test_the_host_finds_every_pair(streets):
    data = CityscapesDataset(
        data_root=str(streets),
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        seg_map_suffix='_gtFine_labelIds.png',
    )
    pairs = [data.get_data_info(i) for i in range(len(data))]
    assert len(pairs) == 4
    assert all(Path(p['img_path']).exists() and Path(p['seg_map_path']).exists() for p in pairs)


def test_a_scene_does_not_depend_on_the_others(streets, tmp_path):
    make_streets(tmp_path / 'b', num_train=2, num_val=0, num_extra=1, size=SMALL, progress=False)
    shared = set(files(streets)) & set(files(tmp_path / 'b')) - {'streets.json'}
    shared = {name for name in shared if name.endswith('.png')}
    assert len(shared) == 10
    assert all((read(streets / n) == read(tmp_path / 'b' / n)).all() for n in shared)
    image, label, instance_ids = draw_scene('0 train 1', SMALL)
    stem = 'train/brunnau/brunnau_000001_000019_'
    assert (read(streets / f'leftImg8bit/{stem}leftImg8bit.png') == image).all()
    assert (read(streets / f'gtFine/{stem}gtFine_labelIds.png') == label).all()
    assert (read(streets / f'gtFine/{stem}gtFine_instanceIds.png') == instance_ids).all()


def test_another_seed_draws_other_scenes():
    assert (draw_scene('0 train 0', SMALL)[0] != draw_scene('1 train 0', SMALL)[0]).mean() > 0.5


def test_all_classes_are_in_several_validation_images(val_labels):
    seen = Counter(value for label in val_labels for value in np.unique(label))
    assert min(seen[value] for value in TRAINED) >= 5, seen
    assert set(seen) <= set(Id)


def test_all_classes_are_in_many_training_images():
    seen = Counter(v for i in range(150) for v in np.unique(draw_scene(f'0 train {i}', SMALL)[1]))
    assert min(seen[value] for value in TRAINED) >= 12, seen


def test_frequent_and_rare_classes_are_those_of_cityscapes(val_labels):
    count = np.bincount(np.concatenate(val_labels).ravel(), minlength=256)
    share = {value: count[value] / count[TRAINED].sum() for value in TRAINED}
    assert set(sorted(share, key=share.__getitem__)[-3:]) == {Id.ROAD, Id.BUILDING, Id.VEGETATION}
    for rare in (Id.WALL, Id.TRUCK, Id.BUS, Id.TRAIN, Id.MOTORCYCLE, Id.BICYCLE, Id.RIDER):
        assert 0 < share[rare] < 0.03


def test_the_same_class_is_near_and_far(val_labels):
    assert max((label == Id.BUS).mean() for label in val_labels) > 0.3
    heights = {Id.CAR: [], Id.PERSON: [], Id.SIGN: [], Id.BUS: []}
    for label in val_labels:
        for value, found in heights.items():
            stats = cv2.connectedComponentsWithStats((label == value).astype(np.uint8))[2]
            found.extend(stats[1:, cv2.CC_STAT_HEIGHT])
    for value, found in heights.items():
        small, large = np.percentile(found, [5, 99])
        assert large > 8 * small, value


def test_poles_are_two_pixels_wide_far_away_and_thick_near(val_labels):
    widths = Counter()
    for label in val_labels:
        pole = np.pad(label == Id.POLE, ((0, 0), (1, 1))).astype(np.int8)
        edges = np.diff(pole, axis=1)
        starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
        widths.update((stops - starts)[:, 1].tolist())
    assert widths[1] + widths[2] > 1000
    assert sum(n for width, n in widths.items() if 8 <= width < 20) > 1000


@pytest.mark.parametrize('size', [SMALL, (65, 129), (300, 200), (1024, 2048)])
def test_any_size_is_drawn(size):
    image, label, instance_ids = draw_scene(3, size)
    assert image.shape == (*size, 3) and label.shape == instance_ids.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert len(np.unique(label)) > 6 and image.std() > 15


def test_instances_are_the_drawn_objects():
    counts, parts, groups = Counter(), 0, 0
    for i in range(30):
        _, label, ids = draw_scene(f'0 val {i}')
        assert (np.where(ids < 1000, ids, ids // 1000) == label).all()
        assert set(ids[ids >= 1000] // 1000) <= set(TRAINED[11:])
        values, areas = np.unique(ids[label >= Id.PERSON], return_counts=True)
        assert areas[values >= 1000].min() >= 7  # 100 of 1024x2048 pixels
        counts.update((values[values >= 1000] // 1000).tolist())
        groups += (values < 1000).sum()
        for value in values[values >= 1000]:
            numbers = set(values[values // 1000 == value // 1000] % 1000)
            assert numbers == set(range(len(numbers)))
            parts += cv2.connectedComponents((ids == value).astype(np.uint8))[0] > 2
    assert counts[Id.CAR] > 100 and counts[Id.PERSON] > 40 and groups > 5
    assert parts > 10  # occluded objects stay one


def test_the_parts_of_a_vehicle_are_one_object():
    scene = Scene(0, (256, 512))
    traffic.vehicle(scene, 'truck', 2.0, 8.0, 0.0)
    traffic.vehicle(scene, 'tram', -3.0, 12.0, 0.0)
    traffic.cycle(scene, 0.0, 6.0, None, motor=False)
    for _, number, draw in scene.draw_calls:
        scene.object = number
        draw()
    ids = np.unique(scene.instance_ids())
    assert ids[ids >= 1000].tolist() == [25000, 27000, 31000, 33000]


def test_a_label_in_cocos_forms_is_that_of_cityscapes(streets):
    for split, count in (('train', 4), ('val', 2)):
        panoptic, instances = (
            json.loads((streets / f'annotations/{kind}_{split}.json').read_text())
            for kind in ('panoptic', 'instances')
        )
        assert [c['id'] for c in panoptic['categories']] == TRAINED
        assert [c['id'] for c in instances['categories']] == TRAINED[11:]
        assert len(panoptic['images']) == len(panoptic['annotations']) == count
        for image, annotation in zip(panoptic['images'], panoptic['annotations'], strict=True):
            png = read(streets / f'annotations/panoptic_{split}' / annotation['file_name'])
            ids = png[..., 2] + 256 * png[..., 1].astype(int) + 65536 * png[..., 0].astype(int)
            stem = image['file_name'].replace('leftImg8bit', 'gtFine_instanceIds')
            expected = read(streets / f'gtFine/{split}' / stem).astype(int)
            category = np.where(expected < 1000, expected, expected // 1000)
            assert (ids == np.where(np.isin(category, TRAINED), expected, 0)).all()
            segments = {s['id']: s for s in annotation['segments_info']}
            assert set(segments) == set(np.unique(ids)) - {0}
            for value, segment in segments.items():
                assert segment['area'] == (ids == value).sum()
                assert segment['category_id'] == (value if value < 1000 else value // 1000)
                assert segment['iscrowd'] == (24 <= value < 1000)
            masks = [a for a in instances['annotations'] if a['image_id'] == image['id']]
            assert len(masks) == sum(s['category_id'] >= 24 for s in segments.values())
            things = np.zeros_like(ids)
            for annotation in masks:
                runs = annotation['segmentation']['counts']
                mask = np.repeat(np.arange(len(runs)) % 2, runs).reshape(SMALL[::-1]).T
                assert mask.sum() == annotation['area']
                things += mask * annotation['category_id']
            assert (things == np.where(category >= 24, category, 0)).all()


def test_coarse_labels_are_right_where_they_are_and_leave_gaps(val_labels):
    agree, cover, lost = [], [], 0
    for label in val_labels[:30]:
        coarse = coarse_labels(label)
        known = coarse > 0
        agree.append((coarse == label)[known].mean())
        cover.append(known.mean())
        lost += len(set(np.unique(label)) - set(np.unique(coarse)))
    assert min(agree) > 0.95
    assert min(cover) > 0.5 and max(cover) < 0.95
    assert lost > 30  # small things are missing


def test_a_complete_folder_is_kept_and_another_set_is_refused(streets):
    before = {p: p.stat().st_mtime_ns for p in streets.rglob('*')}
    same = dict(num_train=4, num_val=2, num_extra=3, size=SMALL, progress=False)
    assert not make_streets(streets, **same)
    with pytest.raises(ValueError, match='remove it or name another folder'):
        make_streets(streets, **{**same, 'seed': 1})
    assert before == {p: p.stat().st_mtime_ns for p in streets.rglob('*')}


def test_an_interrupted_run_leaves_no_folder_and_the_next_one_completes(
    streets, tmp_path, monkeypatch
):
    root = tmp_path / 'streets'
    root.mkdir()
    same = dict(num_train=4, num_val=2, num_extra=3, size=SMALL, progress=False)

    def stop(seed, size):
        if seed == '0 val 1':
            raise KeyboardInterrupt
        return draw_scene(seed, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer, 'draw_scene', stop)
        make_streets(root, **same)
    assert not any(root.iterdir())
    assert make_streets(root, **same)
    assert files(root) == files(streets)
    assert list(tmp_path.iterdir()) == [root]


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_the_tool_draws(tmp_path, monkeypatch, capsys):
    arguments = [tmp_path / 's', '--train', 2, '--val', 1, '--extra', 1, '--size', 64, 128]
    run_tool(monkeypatch, *arguments)
    assert 'drawn' in capsys.readouterr().out
    assert len(list((tmp_path / 's').rglob('*.png'))) == 14
    run_tool(monkeypatch, *arguments)
    assert 'already' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('s', ['--size', 32, 512], 'size 32x512 .* at least 64x128'),
        ('file', [], 'file exists and holds other data'),
        ('s', ['--val', -1], 'numbers of 0 or more'),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, monkeypatch, name, arguments, message):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as stop:
        run_tool(monkeypatch, tmp_path / name, *arguments)
    assert '\n' not in str(stop.value)
    assert not (tmp_path / 's').exists()
