"""Labels of a trained model: what is written, by whom, and what a stopped run leaves."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from io import StringIO
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from rich.console import Console

from mmseg_ext.datasets.cityscapes import LABEL_IDS, CityscapesIdsDataset
from mmseg_ext.errors import UserError, errors_in_a_line
from mmseg_ext.inference import auto_label as module
from mmseg_ext.inference.auto_label import (
    auto_label,
    highest_probability,
    label_and_probability,
)
from mmseg_ext.inference.auto_label_summary import summary_table
from mmseg_ext.inference.predictor import Predictor
from mmseg_ext.visualization.pictures import draw_overlay
from tests.oracles.auto_label import label_and_probability_released
from tests.tiny_run import CLASSES, write_config

ROOT = Path(__file__).parents[2]
NAMES = ('a/0.png', 'a/1.JPG', 'b/c/0.png', 'b/2.png', '3.png')


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), np.uint8)
    return cv2.resize(noise, (47 + seed, 40))


@torch.no_grad()
def balanced(model):
    """Random weights with which every class wins somewhere, more or less surely."""
    images = [torch.from_numpy(picture(i)[:, :47]).permute(2, 0, 1) for i in range(5)]
    meta = dict(ori_shape=(40, 47), img_shape=(40, 47))
    logits = model.inference((torch.stack(images) - 127.5) / 50, [meta] * 5)
    std, mean = torch.std_mean(logits, (0, 2, 3))
    last = model.decode_head.conv_seg
    last.weight.mul_((3 / std)[:, None, None, None])
    last.bias.sub_(mean).mul_(3 / std)
    return model


def write_experiment(folder, *, extra='', classes=CLASSES):
    """A model with sliding windows, and images to label."""
    init_default_scope('mmseg')  # the fixture of all tests comes after this one, of the module
    config = write_config(folder / 'config.py', folder, classes=classes, extra=extra)
    torch.manual_seed(0)
    weights = balanced(MODELS.build(Config.fromfile(config).model).eval()).state_dict()
    palette = [[c, 9, 0] for c in range(len(classes))]
    meta = dict(dataset_meta=dict(classes=classes, palette=palette))
    torch.save(dict(state_dict=weights, meta=meta), folder / 'model.pth')
    for i, name in enumerate(NAMES):
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture(i))


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp('experiment')
    write_experiment(folder)
    return folder


@pytest.fixture(scope='module')
def labelled(experiment):
    """A folder of labels and probabilities, and what was said of it; not to be changed."""
    out = experiment / 'labelled'
    return out, run(experiment, out)


def run(folder, out, **kwargs):
    images = kwargs.pop('images', folder / 'images')
    config = Config.fromfile(folder / 'config.py')
    return auto_label(config, folder / 'model.pth', images, out, **kwargs)


def read(path):
    return np.array(Image.open(path))


def pngs(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*.png'))}


def read_back(folder, out, **loader):
    """The labels as training sees them, by the name of the image."""
    data = DATASETS.build(
        dict(
            type='PseudoLabelDataset',
            data_prefix=dict(img_path=str(folder / 'images'), seg_map_path=str(out)),
            serialize_data=False,
            pipeline=[dict(type='LoadImage'), dict(type='LoadPseudoLabels', **loader)],
        )
    )
    return {item['img_path']: item['gt_seg_map'] for item in data}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_the_probability_is_the_largest_softmax(dtype, monkeypatch):
    logits = (5 * torch.randn(7, 33, 21)).to(dtype)
    whole = highest_probability(logits)
    exact = logits.double().softmax(0).amax(0)
    torch.testing.assert_close(whole.double(), exact, rtol=1e-6, atol=0)
    assert whole.dtype == torch.float32
    monkeypatch.setattr(module, 'BLOCK', 7 * 21 * 4)  # four rows at a time
    torch.testing.assert_close(highest_probability(logits), whole, rtol=1e-6, atol=0)


def test_huge_logits_are_certain_and_equal_ones_are_not():
    assert (highest_probability(torch.tensor([1e30, -1e30, 0.0]).view(3, 1, 1)) == 1).all()
    assert (highest_probability(torch.full((4, 2, 2), 1e30)) == 0.25).all()


def test_what_is_written_differs_from_the_released_form_by_a_rounding(experiment):
    logits = 6 * torch.randn(19, 64, 96)
    sample = SegDataSample(
        seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(0)[None])
    )
    label, prob = label_and_probability(sample)
    released_label, released_prob = label_and_probability_released(logits)
    assert torch.equal(label, released_label)
    steps = (prob.int() - released_prob.int()).abs()
    assert steps.max() <= 1 and steps.float().mean() < 1e-3


def test_one_channel_is_the_probability_of_class_one():
    one = torch.tensor([[[0.9, 0.35, 0.2]]])
    sample = SegDataSample(
        seg_logits=PixelData(data=one), pred_sem_seg=PixelData(data=(one > 0.3).float())
    )
    label, prob = label_and_probability(sample)
    assert label.tolist() == [[1, 1, 0]]
    assert prob.tolist() == [[229, 89, 204]]


def test_labels_are_what_the_model_predicts(experiment, labelled):
    out, _ = labelled
    predictor = Predictor(
        Config.fromfile(experiment / 'config.py'), experiment / 'model.pth', 'cpu'
    )
    assert sorted(pngs(out / 'label')) == sorted(pngs(out / 'prob'))
    assert len(pngs(out / 'label')) == len(NAMES)
    seen = set()
    for name in NAMES:
        image = experiment / 'images' / name
        label = read((out / 'label' / name).with_suffix('.png'))
        np.testing.assert_array_equal(label, predictor.file(image).label)
        packed = predictor._from_file(dict(img_path=str(image), seg_fields=[]))
        with torch.no_grad():
            (sample,) = predictor.model.test_step(pseudo_collate([packed]))
        exact = 255 * sample.seg_logits.data.double().softmax(0).amax(0)
        prob = read((out / 'prob' / name).with_suffix('.png')).astype(int)
        assert np.abs(prob - exact.floor().int().numpy()).max() <= 1
        seen |= set(label.ravel().tolist())
    assert len(seen) > 1


def test_a_hard_label_is_what_the_reader_makes_of_both_files(experiment, labelled, tmp_path):
    written = run(experiment, tmp_path / 'hard', threshold=0.7)
    assert not (tmp_path / 'hard/prob').exists()
    hard = read_back(experiment, tmp_path / 'hard', threshold=None)
    soft = read_back(experiment, labelled[0], threshold=0.7)
    everything = read_back(experiment, labelled[0], threshold=0)
    shares = []
    for name, label in hard.items():
        np.testing.assert_array_equal(label, soft[name])
        kept = label < 255
        np.testing.assert_array_equal(label[kept], everything[name][kept])
        shares.append(kept.mean())
    assert 0.05 < np.mean(shares) < 0.95
    for name, row in written['pixels'].items():
        assert row['kept'] == {'0.7': labelled[1]['pixels'][name]['kept']['0.7']}


def test_each_class_may_have_its_threshold(experiment, labelled, tmp_path):
    thresholds = [0.95, 0.5, 0.7]
    written = run(experiment, tmp_path / 'hard', threshold=thresholds)
    hard = read_back(experiment, tmp_path / 'hard', threshold=None)
    soft = read_back(experiment, labelled[0], threshold=thresholds)
    for name, label in hard.items():
        np.testing.assert_array_equal(label, soft[name])
    for threshold, (name, row) in zip(thresholds, written['pixels'].items(), strict=True):
        expected = labelled[1]['pixels'][name]['kept'][str(threshold)]
        assert row['kept'] == {'its threshold': expected}
    console = Console(width=80, file=StringIO())
    console.print(summary_table(written))
    assert 'at its threshold' in console.file.getvalue()
    assert run(experiment, tmp_path / 'hard', threshold=thresholds) == written
    with pytest.raises(ValueError, match='threshold has 2 values, but there are 3 classes'):
        run(experiment, tmp_path / 'other', threshold=[0.5, 0.9])


def test_the_summary_counts_what_lies_on_the_disk(experiment, labelled):
    out, written = labelled
    assert written == json.loads((out / 'auto_label.json').read_text())
    assert written['images'] == len(NAMES)
    assert len(written['checkpoint_sha256']) == 64
    for threshold in ('0.5', '0.7', '0.9', '0.95'):
        labels = read_back(experiment, out, threshold=float(threshold)).values()
        counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
        rows = list(written['pixels'].values())
        assert [row['kept'][threshold] for row in rows] == counts[:3].tolist()
        assert sum(row['labelled'] for row in rows) == counts.sum()
        for row in rows:
            share = row['kept'][threshold] / max(row['labelled'], 1)
            assert row['kept_fraction'][threshold] == pytest.approx(share, abs=1e-6)
    for row in written['pixels'].values():
        kept = [row['labelled'], *row['kept'].values()]
        assert kept == sorted(kept, reverse=True)
    console = Console(width=80, file=StringIO())
    console.print(summary_table(written))
    text = console.file.getvalue()
    assert all(name in text for name in CLASSES) and '…' not in text


def test_a_picture_shows_images_labels_and_probabilities(experiment, labelled, tmp_path):
    out, written = labelled
    picture = cv2.imread(str(out / 'auto_label.png'))[..., ::-1]
    assert picture.shape[1] == 3 * 406  # four images in rows of three panels, and the classes
    image = cv2.imread(str(experiment / 'images/3.png'))[..., ::-1]  # the first by name
    height = round(400 * image.shape[0] / image.shape[1])
    overlay = draw_overlay(image, read(out / 'label/3.png'), written['palette'])
    for left, wanted in ((0, image), (406, overlay)):
        shown = cv2.resize(wanted, (400, height), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(picture[20 : 20 + height, left : left + 400], shown)
    run(experiment, tmp_path / 'hard', threshold=0.7)
    assert cv2.imread(str(tmp_path / 'hard/auto_label.png')).shape[1] == 2 * 406


def label_until_killed(folder, out, last):
    """Labels, and dies in the middle of a write: half of the file is there."""
    files = count()
    fsync = os.fsync

    def die(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(files) == last:
            os.ftruncate(descriptor, 30)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = die
    run(folder, out)


@pytest.mark.parametrize('last', [0, 2, 5, 10])
def test_a_killed_run_goes_on_to_the_same_files(experiment, labelled, tmp_path, last):
    process = get_context('fork').Process(
        target=label_until_killed, args=(experiment, tmp_path / 'out', last)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    half = list((tmp_path / 'out').rglob('*.unfinished'))
    assert half
    whole = pngs(tmp_path / 'out')
    assert len(whole) < 2 * len(NAMES)
    expected = pngs(labelled[0])
    assert all(expected[name] == content for name, content in whole.items())
    before = {name: (tmp_path / 'out' / name).stat().st_mtime_ns for name in whole}

    written = run(experiment, tmp_path / 'out')
    assert pngs(tmp_path / 'out') == expected
    assert written == labelled[1]
    assert not list((tmp_path / 'out').rglob('*.unfinished'))
    for name, time in before.items():
        other = name.replace('label', 'prob', 1)
        if name.startswith('label') and other in whole:  # done, so left alone
            assert (tmp_path / 'out' / name).stat().st_mtime_ns == time


def test_a_finished_run_labels_nothing_again(experiment, labelled, monkeypatch):
    monkeypatch.setattr(module, 'label_and_probability', None)
    assert run(experiment, labelled[0]) == labelled[1]


def test_one_image_is_labelled_beside_itself(experiment, labelled, tmp_path):
    out = experiment / 'images/b/one'  # no folder of images holds it
    try:
        assert run(experiment, out, images=experiment / 'images/b/2.png')['images'] == 1
        assert pngs(out)['label/2.png'] == pngs(labelled[0])['label/b/2.png']
    finally:
        shutil.rmtree(out)


def test_each_process_takes_its_images_and_the_last_one_sums_up(experiment, labelled, tmp_path):
    first = run(experiment, tmp_path / 'out', rank=0, world_size=2)
    assert first is None
    names = sorted(str(Path(name).with_suffix('.png')) for name in NAMES)
    assert sorted(pngs(tmp_path / 'out/label')) == sorted(names[::2])
    assert 'pixels' not in json.loads((tmp_path / 'out/auto_label.json').read_text())
    assert run(experiment, tmp_path / 'out', rank=1, world_size=2) == labelled[1]
    assert pngs(tmp_path / 'out') == pngs(labelled[0])


def test_two_processes_of_torchrun_write_the_same_files_as_one(experiment, labelled, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    command += [ROOT / 'tools/auto_label.py', experiment / 'config.py', experiment / 'model.pth']
    command += [experiment / 'images', tmp_path / 'out', '--device', 'cpu']
    env = dict(os.environ, OMP_NUM_THREADS='1')
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert '5 images are labelled in' in done.stdout
    assert pngs(tmp_path / 'out') == pngs(labelled[0])
    written = json.loads((tmp_path / 'out/auto_label.json').read_text())
    assert written['pixels'] == labelled[1]['pixels']


def test_averaged_logits_label_a_mirrored_image_mirrored(tmp_path):
    write_experiment(tmp_path, extra="tta_model = dict(type='LogitTTAModel')")
    image = cv2.imread(str(tmp_path / 'images/3.png'))
    (tmp_path / 'pair').mkdir()
    cv2.imwrite(str(tmp_path / 'pair/0.png'), image)
    cv2.imwrite(str(tmp_path / 'pair/1.png'), image[:, ::-1])
    same = {}
    for tta in (True, False):
        out = tmp_path / f'tta_{tta}'
        run(tmp_path, out, tta=tta, images=tmp_path / 'pair')
        one, two = (read(out / f'label/{i}.png') for i in (0, 1))
        same[tta] = (one == two[:, ::-1]).mean()
    assert same[True] > 0.999 > same[False]


def test_cityscapes_is_written_in_its_label_ids_and_read_back(tmp_path):
    classes = CityscapesIdsDataset.METAINFO['classes']
    write_experiment(
        tmp_path,
        classes=classes,
        extra="model['decode_head']['num_classes'] = 19\n"
        "test_dataloader = dict(dataset=dict(type='CityscapesIdsDataset', pipeline=test_pipeline))",
    )
    written = run(tmp_path, tmp_path / 'out')
    config = Config.fromfile(tmp_path / 'config.py')
    predictor = Predictor(config, tmp_path / 'model.pth', 'cpu')
    back = read_back(tmp_path, tmp_path / 'out', threshold=0)
    for path, label in back.items():
        predicted = predictor.file(Path(path)).label
        np.testing.assert_array_equal(label, predicted)
        name = Path(path).relative_to(tmp_path / 'images').with_suffix('.png')
        ids = read(tmp_path / 'out/label' / name)
        np.testing.assert_array_equal(ids, np.array(LABEL_IDS)[predicted])
    assert list(written['pixels']) == list(classes)


def test_a_folder_of_other_labels_is_refused(experiment, labelled, tmp_path):
    out, _ = labelled
    with pytest.raises(ValueError, match=r'made with another threshold \(None, now 0.5; see auto'):
        run(experiment, out, threshold=0.5)
    other = torch.load(experiment / 'model.pth')
    other['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(other, tmp_path / 'model.pth')
    (tmp_path / 'config.py').symlink_to(experiment / 'config.py')
    with pytest.raises(ValueError, match='made with another checkpoint_sha256'):
        run(tmp_path, out, images=experiment / 'images')
    (tmp_path / 'strange/label').mkdir(parents=True)
    with pytest.raises(ValueError, match=r'label exists without auto_label\.json'):
        run(experiment, tmp_path / 'strange')


def test_wrong_folders_and_images_get_a_sentence(experiment, tmp_path):
    with pytest.raises(ValueError, match='nowhere does not exist'):
        run(experiment, tmp_path / 'out', images=tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no image'):
        run(experiment, tmp_path / 'out', images=tmp_path / 'empty')
    with pytest.raises(ValueError, match='results would become images'):
        run(experiment, experiment / 'images/out')
    with pytest.raises(ValueError, match='threshold=90 must be a probability'):
        run(experiment, tmp_path / 'out', threshold=90)
    assert not (tmp_path / 'out').exists()


def test_another_number_of_classes_gets_a_sentence(experiment, tmp_path):
    checkpoint = torch.load(experiment / 'model.pth')
    checkpoint['meta']['dataset_meta']['classes'] = ('wall', 'floor', 'cat', 'dog')
    torch.save(checkpoint, tmp_path / 'model.pth')
    (tmp_path / 'config.py').symlink_to(experiment / 'config.py')
    with pytest.raises(ValueError, match='predicts 3 classes, but its data set has 4'):
        run(tmp_path, tmp_path / 'out', images=experiment / 'images')


def test_augmentation_without_a_mean_gets_a_sentence(experiment, tmp_path):
    with pytest.raises(ValueError, match='SegTTAModel returns no mean .*LogitTTAModel'):
        run(experiment, tmp_path / 'out', tta=True)
    write_experiment(tmp_path, extra='tta_model = None')
    with pytest.raises(ValueError, match='has no tta_model and tta_pipeline'):
        run(tmp_path, tmp_path / 'out', tta=True)


def test_a_damaged_image_stops_with_its_name_and_keeps_what_is_done(tmp_path):
    loader = "test_pipeline[0] = dict(type='LoadImage')\ntest_dataloader['num_workers'] = 1"
    write_experiment(tmp_path, extra=loader)
    whole = (tmp_path / 'images/b/2.png').read_bytes()
    (tmp_path / 'images/b/2.png').write_bytes(b'no picture')
    named = pytest.raises(SystemExit, match=r'^error: .*images/b/2\.png cannot be decoded')
    with named, errors_in_a_line():
        run(tmp_path, tmp_path / 'out')
    kept = pngs(tmp_path / 'out')
    assert 0 < len(kept) < 2 * len(NAMES)
    (tmp_path / 'images/b/2.png').write_bytes(whole)
    run(tmp_path, tmp_path / 'out')
    assert len(pngs(tmp_path / 'out')) == 2 * len(NAMES) + 1  # and the picture


def test_equal_names_of_classes_in_a_checkpoint_are_refused(experiment, tmp_path) -> None:
    saved = torch.load(experiment / 'model.pth')
    classes = list(saved['meta']['dataset_meta']['classes'])
    saved['meta']['dataset_meta']['classes'] = [classes[0], *classes[:-1]]
    torch.save(saved, tmp_path / 'equal.pth')
    config = Config.fromfile(experiment / 'config.py')
    with pytest.raises(UserError, match=f'equal.pth: .*classes has {classes[0]} twice'):
        auto_label(config, tmp_path / 'equal.pth', experiment / 'images', tmp_path / 'out')
