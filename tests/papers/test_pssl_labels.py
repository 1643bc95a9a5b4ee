"""PSSL's labels: the tool, its files, the data set, and what goes wrong with them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

from mmseg_ext.config import prepare
from mmseg_ext.convert import convert
from mmseg_ext.datasets.shapes import SHAPES, draw_shape, make_shapes
from mmseg_ext.errors import UserError
from mmseg_ext.papers.pssl import classifiers as of_packages
from mmseg_ext.papers.pssl import labels
from mmseg_ext.papers.pssl.classifiers import (
    Classifier,
    efficientnet_lite,
    read_classifiers,
    timm_model,
    torchvision_model,
    trained_classifier,
)
from mmseg_ext.papers.pssl.label_files import read_foreground, read_summary
from mmseg_ext.papers.pssl.label_maker import Settings, make_labels
from mmseg_ext.papers.pssl.summary import parse_shard
from mmseg_ext.papers.pssl.train_classifier import train_classifier
from tests.tiny import CONFIG_DIR, shrink

FEW = Settings(n_samples=3)
Folder = Path


def color_classifier(classes: int = 2, scale: float = 30.0) -> nn.Module:
    """Class 0 is red, class 1 is green, further classes never occur."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
    nn.init.zeros_(model[2].bias)
    model[2].weight.data.zero_()
    model[2].weight.data[:2] = torch.tensor([[1.0, -1, 0], [-1, 1, 0]]) * scale
    return model


def edge_classifier(classes: int = 2) -> nn.Module:
    """The same, and its gradient is large on the coloured square alone."""

    class Cube(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.ones(classes))

        def forward(self, x: Tensor) -> Tensor:
            redness = (x[:, 0] - x[:, 1]) ** 3
            value = redness.mean((1, 2)) / 2
            return torch.stack([value, -value, *[value * 0] * (classes - 2)], 1) * self.slope

    return Cube()


def write_images(folder: Path, count: int = 3, size: tuple[int, int] = (40, 50)) -> None:
    """A red or green square on grey noise in each picture, and its mask."""
    rng = np.random.default_rng(0)
    for name, channel in (('red', 0), ('green', 1)):
        for i in range(count):
            image = rng.normal(128, 12, (*size, 3)).clip(0, 255).astype(np.uint8)
            top, left = rng.integers(2, size[0] - 18), rng.integers(2, size[1] - 18)
            square = slice(top, top + 15), slice(left, left + 15)
            image[square] = np.where(np.arange(3) == channel, 230, 60)
            mask = np.zeros(size, np.uint8)
            mask[square] = 1
            for root, array, suffix in (('images', image, 'jpg'), ('masks', mask, 'png')):
                path = folder / root / name / f'{i}.{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


def both() -> list[Classifier]:
    classes = ('red', 'green')
    return [
        Classifier(edge_classifier(), 'edges', 40, classes=classes),
        Classifier(color_classifier(), 'colors', 32, classes=classes),
    ]


def files_in(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob('*')) if p.is_file()}


def test_labels_lie_on_the_object(folder):
    written = make_labels(
        folder / 'images', both()[:1], folder / 'out', FEW, masks=folder / 'masks', previews=1
    )
    means = written['statistics']
    assert means['hit'] == [1.0] and written['classes'] == ['green', 'red']
    assert means['precision'][0] > 5 * means['object_share']
    assert means['iou'][0] > 0.6 * means['largest_iou']
    foreground = read_foreground(folder / 'out/red/0.png', 9)
    assert foreground.shape == (40, 50) and foreground.sum() == 200
    with Image.open(folder / 'out/red/0.png') as label:
        assert label.mode == '1'
    (preview,) = (folder / 'out/preview').rglob('*.jpg')
    with Image.open(preview) as picture:
        assert picture.size[0] > 4 * 400


def test_a_run_is_the_same_in_shards_and_after_a_stop(folder, monkeypatch):
    """And neither the batch nor the order of the images has a part in it."""
    whole = make_labels(folder / 'images', both(), folder / 'whole', FEW)
    for i in (2, 0, 1):
        sharded = make_labels(folder / 'images', both(), folder / 'shards', FEW, shard=(i, 3))
        assert (sharded is None) == (i != 1)
    assert files_in(folder / 'shards') == files_in(folder / 'whole')
    (folder / 'shards/red/1.png').unlink()
    kept = (folder / 'shards/red/0.png').stat().st_mtime_ns
    assert make_labels(folder / 'images', both(), folder / 'shards', FEW) == whole
    assert files_in(folder / 'shards') == files_in(folder / 'whole')
    assert (folder / 'shards/red/0.png').stat().st_mtime_ns == kept
    seeded = Settings(n_samples=3, seed=1)
    make_labels(folder / 'images', both(), folder / 'other', seeded)
    assert files_in(folder / 'other') != files_in(folder / 'whole')


def test_all_tenths_hold_the_top_one(folder):
    settings = Settings(n_samples=3, all_deciles=True)
    make_labels(folder / 'images', both(), folder / 'out', FEW)
    make_labels(folder / 'images', both(), folder / 'tenths', settings)
    for name in ('red/0.png', 'green/2.png'):
        top = read_foreground(folder / 'out' / name, 9)
        assert (read_foreground(folder / 'tenths' / name, 9) == top).all()
        assert read_foreground(folder / 'tenths' / name, 7).sum() == 600
        with Image.open(folder / 'tenths' / name) as label:
            counts = np.bincount(np.array(label).ravel())
        assert (counts == 200).all() and len(counts) == 10
    with pytest.raises(UserError, match='holds the top tenth only: set top=9'):
        read_foreground(folder / 'out/red/0.png', 7)


def test_classifiers_that_disagree_explain_the_class_of_the_folder(folder):
    """The second one has its classes swapped: it never predicts the class of the image."""
    wrong = Classifier(edge_classifier(), 'wrong', 40, classes=('green', 'red'))
    written = make_labels(folder / 'images', [both()[0], wrong], folder / 'out', FEW)
    assert written['statistics']['hit'] == [1.0, 0.0]
    assert written['statistics']['probability'][1] < 0.5
    assert read_foreground(folder / 'out/red/0.png', 9).sum() == 200


def test_the_predicted_class_is_explained_where_folders_are_no_classes(folder):
    many = [Classifier(edge_classifier(7), name, 40) for name in 'ab']
    settings = Settings(n_samples=3, explain='top1')
    written = make_labels(folder / 'images', many, folder / 'out', settings, masks=folder / 'masks')
    assert written['statistics']['hit'] == [1.0, 1.0]
    assert written['statistics']['precision'][1] > 5 * written['statistics']['object_share']


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.sum((1, 2, 3)), x.sqrt().sum((1, 2, 3))], 1)


@pytest.mark.parametrize(
    ('classifier', 'sentence'),
    [
        (Classifier(color_classifier(5), 'five', 32), 'five has 5 outputs, but there are 2 class'),
        (
            Classifier(color_classifier(), 'named', 32, classes=('red', 'blue')),
            'named does not know the class folder green',
        ),
        (
            Classifier(color_classifier(), 'three', 32, classes=('red', 'green', 'blue')),
            'three has 2 outputs, but names 3 classes',
        ),
        (Classifier(nn.Conv2d(3, 2, 1), 'conv', 32), r'conv returns \(1, 2, .*not logits \(1, K\)'),
        (Classifier(lambda x: [x], 'list', 32), r'list returns list for one image'),
        (Classifier(Infinite(), 'nan', 32), 'nan returns logits that are not finite'),
    ],
    ids=lambda value: value.name if isinstance(value, Classifier) else '',
)
def test_classifiers_that_do_not_fit_are_refused(folder, classifier, sentence):
    with pytest.raises(UserError, match=sentence):
        make_labels(folder / 'images', [classifier], folder / 'out', FEW)
    assert not list((folder).glob('out/*/*.png'))


def test_of_the_predicted_class_classifiers_need_the_same_outputs(folder):
    two = [Classifier(color_classifier(n), f'c{n}', 32) for n in (5, 6)]
    with pytest.raises(UserError, match='c6 has 6 outputs and c5 5: give classifiers of the same'):
        make_labels(folder / 'images', two, folder / 'out', Settings(explain='top1'))
    with pytest.raises(UserError, match='no classifier is given'):
        make_labels(folder / 'images', [], folder / 'out')


def test_gradients_that_are_not_finite_name_the_image(folder):
    class Root(nn.Module):
        """Finite, but infinitely steep at 0."""

        def forward(self, x: Tensor) -> Tensor:
            value = (x - x).abs().sqrt().sum((1, 2, 3)) + x.mean((1, 2, 3))
            return torch.stack([value, -value], 1)

    with pytest.raises(UserError, match='green/0.jpg: the gradients of steep are not finite'):
        make_labels(folder / 'images', [Classifier(Root(), 'steep', 32)], folder / 'out', FEW)


def test_images_that_cannot_be_used_are_refused(folder):
    images, out = folder / 'images', folder / 'out'
    with pytest.raises(UserError, match='is no folder: give a folder of class folders'):
        make_labels(folder / 'nothing', both(), out)
    with pytest.raises(UserError, match='lies in .*images, so labels would become images'):
        make_labels(images, both(), images / 'out')
    (images / 'red/0.png').write_bytes((images / 'red/0.jpg').read_bytes())
    with pytest.raises(UserError, match='red/0.jpg and red/0.png would have the same label'):
        make_labels(images, both(), out)
    (images / 'red/0.png').rename(images / 'loose.png')
    with pytest.raises(UserError, match='loose.png lies in no class folder'):
        make_labels(images, both(), out)
    (images / 'loose.png').unlink()
    (images / 'green/1.jpg').write_bytes((images / 'green/1.jpg').read_bytes()[:300])
    with pytest.raises(UserError, match='green/1.jpg cannot be decoded as an image'):
        make_labels(images, both(), out, FEW)
    empty = folder / 'empty'
    empty.mkdir()
    with pytest.raises(UserError, match='holds no image in class folders'):
        make_labels(empty, both(), out)


def test_images_of_one_class_have_a_class_and_background(folder):
    """A classifier of one class gives no gradient of its probability: all is equal."""
    for path in (folder / 'images/green').iterdir():
        path.unlink()
    (folder / 'images/green').rmdir()
    constant = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    written = make_labels(folder / 'images', [Classifier(constant, 'one', 32)], folder / 'out', FEW)
    assert written['classes'] == ['red'] and written['statistics']['hit'] == [1.0]
    foreground = read_foreground(folder / 'out/red/0.png', 9)
    assert foreground.ravel()[-200:].all() and foreground.sum() == 200  # the last of the raster
    with pytest.raises(UserError, match='has the class folder red only'):
        train_classifier(folder / 'images', folder / 'c.pth')


def test_another_run_in_the_same_folder_is_refused(folder):
    images, out = folder / 'images', folder / 'out'
    make_labels(images, both(), out, FEW)
    before = files_in(out)
    other = both()
    other[0].module.slope.data[0] = 0.5
    for classifiers, settings, sentence in (
        (both(), Settings(n_samples=4), r'other settings \(n_samples=3, now 4\)'),
        (both()[:1], FEW, r"other settings \(classifiers=\['edges', 'colors'\], now \['edges'\]"),
        (other, FEW, 'other settings'),
    ):
        with pytest.raises(UserError, match=sentence):
            make_labels(images, classifiers, out, settings)
    (images / 'blue').mkdir()
    (images / 'red/0.jpg').rename(images / 'blue/0.jpg')
    with pytest.raises(UserError, match=r'labels of 2 class folders, and now there are 3 \(differ'):
        make_labels(images, both(), out, FEW)
    assert files_in(out) == before


def test_masks_that_do_not_fit_are_refused(folder):
    (folder / 'masks/green/1.png').unlink()
    options = dict(masks=folder / 'masks')
    with pytest.raises(UserError, match='green/1.png, the mask of green/1.jpg, does not exist'):
        make_labels(folder / 'images', both(), folder / 'out', FEW, **options)
    Image.new('L', (5, 5)).save(folder / 'masks/green/1.png')
    with pytest.raises(UserError, match=r'has the shape \(5, 5\), but its image \(40, 50\)'):
        make_labels(folder / 'images', both(), folder / 'out', FEW, **options)


@pytest.mark.parametrize('text', ['1', '2/2', 'a/b', '-1/2'])
def test_shards_that_are_none_are_refused(text):
    with pytest.raises(UserError, match=r'give I/N with I from 0 to N - 1'):
        parse_shard(text)
    assert parse_shard('1/2') == (1, 2)


def dataset(folder: Path, **kwargs: object):
    pipeline = [dict(type='LoadImage'), dict(type='LoadPSSLLabel')]
    options: dict = dict(
        type='PSSLDataset',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='out'),
        pipeline=pipeline,
    )
    return DATASETS.build(options | kwargs)


def test_the_data_set_reads_what_the_tool_writes(folder):
    make_labels(folder / 'images', both(), folder / 'out', Settings(n_samples=3, all_deciles=True))
    data = dataset(folder)
    assert data.metainfo['classes'] == ('green', 'red', 'background') and data.ignore_index == 1001
    for item, index in ((data[0], 0), (data[5], 1)):
        label = item['gt_seg_map']
        assert label.dtype == np.uint16 and np.unique(label).tolist() == [index, 2]
        assert (label == index).sum() == 200
    assert (dataset(folder, top=5)[0]['gt_seg_map'] == 0).sum() == 1000


def test_labels_that_are_missing_or_damaged_are_named(folder):
    with pytest.raises(
        UserError, match='pssl.json, which names the classes of the labels, does no'
    ):
        dataset(folder)
    make_labels(folder / 'images', both(), folder / 'out', FEW)
    path = folder / 'out/red/1.png'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='red/1.png cannot be decoded as a label'):
        dataset(folder)[4]
    with pytest.raises(UserError, match='red/1.png'):  # a resumed run reads all of them
        make_labels(folder / 'images', both(), folder / 'out', FEW)
    path.unlink()
    with pytest.raises(UserError, match='1 of 6 images have no label in .*red/1.jpg: run tools'):
        dataset(folder)
    Image.new('L', (50, 40), 3).save(path)
    with pytest.raises(UserError, match='is no label of tools/pssl_labels.py, but an image of'):
        dataset(folder)[4]
    Image.new('1', (5, 4)).save(path)
    with pytest.raises(UserError, match=r'has the shape \(4, 5\) and its image'):
        dataset(folder)[4]
    (folder / 'out/pssl.json').write_text('{')
    with pytest.raises(UserError, match='pssl.json is damaged'):
        read_summary(folder / 'out')


def test_other_class_folders_than_those_of_the_labels_are_refused(folder):
    make_labels(folder / 'images', both(), folder / 'out', FEW)
    with pytest.raises(UserError, match=r'have 3 classes and metainfo has 2 \(different: green'):
        dataset(folder, metainfo=dict(classes=('red', 'background')))
    with pytest.raises(UserError, match='ignore_index=2 is one of 2 classes and background'):
        dataset(folder, ignore_index=2)
    (folder / 'images/blue').mkdir()
    (folder / 'images/red/1.jpg').rename(folder / 'images/blue/1.jpg')
    with pytest.raises(UserError, match='in the class folder blue, which the labels do not have'):
        dataset(folder)


def released(folder: Path, values: np.ndarray) -> dict:
    """One image and its label in the released form, class 700 of 1000."""
    synsets = [f'n{i:08d}' for i in range(1000)]
    name = f'train/{synsets[700]}/{synsets[700]}_7.JPEG'
    for root in ('images', 'labels'):
        (folder / root / name).parent.mkdir(parents=True)
    Image.fromarray(np.zeros((*values.shape, 3), np.uint8)).save(folder / 'images' / name, 'JPEG')
    np.savez(folder / 'labels' / f'{name}_eiseg.npz', values)
    (folder / 'synsets.txt').write_text('\n'.join(synsets) + '\n')
    (folder / 'list.txt').write_text(f'{name}_eiseg.npz\n\n')
    return dict(
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        ann_file='list.txt',
        synsets_file='synsets.txt',
    )


def test_released_labels_of_class_700_survive_the_training_pipeline(tmp_path):
    values = np.zeros((300, 200), np.int64)
    values[50:250, 40:160] = 1
    values[:5] = -1
    cfg = Config.fromfile(CONFIG_DIR / 'pssl/pspnet_r50_pssl.py')
    options = released(tmp_path, values)
    data = dataset(tmp_path, **options)
    assert data.metainfo['classes'][700] == 'n00000700' and len(data.metainfo['classes']) == 1001
    expected = labels(torch.from_numpy(values == 1), 700, 1000)
    assert np.array_equal(data[0]['gt_seg_map'], expected.numpy())
    ignoring = [dict(type='LoadImage'), dict(type='LoadPSSLLabel', ignore_values=[-1])]
    label = dataset(tmp_path, **options, pipeline=ignoring)[0]['gt_seg_map']
    assert (label[:5] == 1001).all() and (label[5:] != 1001).all()

    np.random.seed(0)
    data = dataset(tmp_path, **options, pipeline=cfg.train_dataloader.dataset.pipeline)
    batch = [data[0] for _ in range(6)]
    processed = MODELS.build(cfg.model.data_preprocessor)(
        {key: [item[key] for item in batch] for key in batch[0]}, training=True
    )
    stacked = torch.stack([s.gt_sem_seg.data for s in processed['data_samples']])
    assert stacked.dtype == torch.int64 and stacked.shape == (6, 1, 256, 256)
    assert set(stacked.unique().tolist()) == {700, 1000, 1001}
    padding = stacked[:, 0] == 1001  # is grey, and the image is black
    assert processed['inputs'].movedim(1, -1)[padding].abs().max() < 0.4
    assert processed['inputs'].movedim(1, -1)[~padding].max() < -0.5


def test_released_files_that_are_damaged_are_named(tmp_path):
    options = released(tmp_path, np.zeros((30, 20)))
    (path,) = tmp_path.rglob('*.npz')
    for content in (b'', path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(UserError, match='cannot be decoded as a label, an array arr_0'):
            dataset(tmp_path, **options)[0]
    with pytest.raises(UserError, match='does not exist: name the list with ann_file'):
        dataset(tmp_path, **{**options, 'ann_file': 'nothing.txt'})


def thousand_classes(**changes: object) -> nn.Module:
    """PSPNet of the recipe, with few channels but all classes."""
    small = shrink(Config.fromfile(CONFIG_DIR / 'pssl/pspnet_r50_pssl.py').model.to_dict())
    torch.manual_seed(0)
    model = small | dict(num_classes=1001, ignore_index=1001) | changes
    return revert_sync_batchnorm(MODELS.build(model))


def sample(label: Tensor) -> SegDataSample:
    size = label.shape[1:]
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
    return SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta)


def test_a_model_of_a_thousand_classes_learns_class_255_and_ignores_1001():
    model = thousand_classes().train()
    images = torch.randn(2, 3, 64, 64)
    label = torch.full((1, 64, 64), 1001)
    losses = model.loss(images, [sample(label), sample(label)])
    assert losses.keys() == {'decode.loss_ce', 'aux.loss_ce'}
    assert all(value == 0 for value in losses.values())
    label[:, 20:40, 20:40] = 255
    losses = model.loss(images, [sample(label), sample(label)])
    assert all(value > 0 for value in losses.values())
    sum(losses.values()).backward()
    gradient = model.decode_head.conv_seg.bias.grad
    assert gradient[255] < 0 and (gradient > 0).sum() == 1000
    with pytest.raises(
        UserError, match='a label holds the value 1002, but the classes are 0 to 10'
    ):
        model.loss(images, [sample(label + 1), sample(label)])


def test_another_head_ignores_the_same_label():
    head = dict(type='FCNHead', channels=4, num_convs=1)
    model = thousand_classes(decode_head=head, auxiliary_head=None)
    assert (model.decode_head.num_classes, model.decode_head.ignore_index) == (1001, 1001)


PAIRS = ['pspnet_r50', 'deeplabv3_r50', 'ocrnet_hrnet18', 'stdc2', 'pp_liteseg', 'efflite_fpn']


@pytest.mark.parametrize('network', PAIRS)
def test_fine_tuning_takes_everything_but_the_classifiers(network):
    targets = sorted(CONFIG_DIR.glob(f'pssl/{network}_*.py'))
    sources = [p for p in targets if p.stem.endswith(('_pssl', '_shapes'))]
    (source,) = sources
    targets.remove(source)
    assert targets
    states = {}
    for path in (source, *targets):
        cfg = prepare.prepare_training(str(path)).model.to_dict()
        states[path] = shapes_of(MODELS.build(cfg))
    start = convert('pssl', {k: torch.empty(s) for k, s in states[source].items()})
    for path in targets:
        ours = states[path]
        missing = set(ours) - set(start)
        assert missing and all('conv_seg' in name or 'aux_seg' in name for name in missing), missing
        assert not set(start) - set(ours)
        assert all(tuple(start[name].shape) == ours[name] for name in start)


def shapes_of(model: nn.Module) -> dict[str, tuple]:
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def test_weights_without_a_classifier_are_refused():
    for weights in ({'backbone.x': torch.zeros(1)}, {'decode_head.conv_seg.bias': torch.zeros(1)}):
        with pytest.raises(UserError, match='the weights have no classifier'):
            convert('pssl', weights)


def test_classifiers_of_files(tmp_path, folder):
    (tmp_path / 'models.py').write_text(
        'import torch\n'
        'from mmseg_ext.papers.pssl.classifiers import Classifier, efficientnet_lite\n'
        'models = [efficientnet_lite(0), lambda x: x.mean((2, 3)),\n'
        "    Classifier(torch.nn.Flatten(), 'flat', 96)]\n"
    )
    lite, function, flat = read_classifiers([tmp_path / 'models.py'])
    assert (lite.name, lite.size, flat.size) == ('efficientnet_lite0', 224, 96)
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    assert lite.prepare(image).shape == (1, 3, 224, 448)
    torch.testing.assert_close(lite.prepare(image), -torch.ones(1, 3, 224, 448))
    assert function.probabilities(torch.zeros(1, 3, 9, 9)).tolist() == pytest.approx([1 / 3] * 3)
    assert lite.describe()['weights_sha256'] != flat.describe()['weights_sha256']
    for content, sentence in (('models = 3', 'has no list'), ('models = [3]', 'and no int')):
        (tmp_path / 'models.py').write_text(content)
        with pytest.raises(UserError, match=sentence):
            read_classifiers([tmp_path / 'models.py'])
    with pytest.raises(UserError, match='does not exist'):
        read_classifiers([tmp_path / 'nothing.py'])
    torch.save(dict(state_dict={'x': torch.zeros(1)}), tmp_path / 'other.pth')
    with pytest.raises(UserError, match='is not of tools/train_classifier.py'):
        read_classifiers([tmp_path / 'other.pth'])
    with pytest.raises(UserError, match='give 0, 1 or 2'):
        efficientnet_lite(3)


class Library:
    """A stand-in for torchvision.models and timm, which are not installed here."""

    pretrained_cfg = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_size=(3, 160, 160))

    def get_model(self, name: str, num_classes: int) -> nn.Module:
        assert name == 'net'
        return color_classifier(num_classes)

    def create_model(self, name: str, num_classes: int = 4, pretrained: bool = False) -> nn.Module:
        model = color_classifier(num_classes)
        model.pretrained_cfg = self.pretrained_cfg
        return model


def test_classifiers_of_libraries(tmp_path, monkeypatch):
    torch.save(color_classifier(3).state_dict(), tmp_path / 'net.pth')
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / 'other.pth')
    monkeypatch.setattr(of_packages, 'import_extra', lambda *args: Library())
    vision = torchvision_model('net', tmp_path / 'net.pth')
    timm = timm_model('net', tmp_path / 'net.pth', classes=('a', 'b', 'c'))
    assert (timm.size, timm.mean, timm.std) == (160, [127.5] * 3, [63.75] * 3)
    for model in (vision, timm, timm_model('net')):
        assert len(model.probabilities(torch.zeros(1, 3, 8, 8))) in (3, 4)
    with pytest.raises(UserError, match='other.pth holds the weights of another model'):
        torchvision_model('net', tmp_path / 'other.pth')


@pytest.mark.parametrize(
    ('make', 'name'), [(torchvision_model, 'torchvision'), (timm_model, 'timm')]
)
def test_a_library_that_is_not_installed_is_named(monkeypatch, make, name):
    for module in ('timm', 'torchvision', 'torchvision.models'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f'needs {name}: pip install {name}'):
        make('net', 'net.pth')


def test_a_small_classifier_learns_its_folders(folder):
    write_images(folder, 8)
    options: dict = dict(width=0.25, size=64, epochs=40, batch_size=8)
    accuracy = train_classifier(folder / 'images', folder / 'c.pth', **options)
    assert accuracy >= 0.8
    classifier = trained_classifier(folder / 'c.pth')
    assert classifier.classes == ['green', 'red'] and classifier.size == 64
    hashes = set()
    for name in 'de':
        train_classifier(folder / 'images', folder / f'{name}.pth', **{**options, 'epochs': 1})
        again = trained_classifier(folder / f'{name}.pth').describe()
        hashes.add(again['weights_sha256'])
    assert len(hashes) == 1
    (folder / 'images/red').rename(folder / 'images/blue')
    write_images(folder / 'val', 1)
    with pytest.raises(UserError, match='has other class folders than .*: blue, red'):
        train_classifier(folder / 'images', folder / 'c.pth', val=folder / 'val/images')


def test_drawn_objects_are_where_their_masks_say(tmp_path):
    assert make_shapes(tmp_path / 's', num_train=2, num_val=1, size=48)
    assert not make_shapes(tmp_path / 's', num_train=2, num_val=1, size=48)
    assert sorted(p.name for p in (tmp_path / 's/train').iterdir()) == sorted(SHAPES)
    before = files_in(tmp_path / 's')
    (tmp_path / 's/shapes.json').write_text('{}')  # as after a stop
    assert make_shapes(tmp_path / 's', num_train=2, num_val=1, size=48)
    assert files_in(tmp_path / 's') == before
    for name in SHAPES:
        image, mask = draw_shape(name, 'x', 64)
        assert image.shape == (64, 64, 3) and set(np.unique(mask)) == {0, 1}
        assert 0.02 < mask.mean() < 0.5
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()
    with pytest.raises(UserError, match='holds other files: name a new folder'):
        make_shapes(tmp_path)
    with pytest.raises(UserError, match='must be at least 32'):
        make_shapes(tmp_path / 'x', size=8)


def test_the_tools_run_from_the_command_line(folder, monkeypatch, capsys):
    tools = Path(__file__).parents[2] / 'tools'
    monkeypatch.chdir(folder)

    def run(tool: str, *args: str) -> str:
        monkeypatch.setattr(sys, 'argv', [tool, *args])
        runpy.run_path(str(tools / f'{tool}.py'), run_name='__main__')
        return capsys.readouterr().out

    images = ('--images', 'images')
    out = run('train_classifier', *images, '--out', 'c.pth', '--epochs', '1', '--size', '32')
    assert 'c.pth: predicts the class of' in out
    command = (*images, '--models', 'c.pth', '--out', 'out', '--samples', '2')
    assert 'process 1 of 2 is done' in run('pssl_labels', *command, '--shard', '0/2')
    out = run('pssl_labels', *command, '--shard', '1/2')
    assert '6 images of 2 classes in out' in out and 'first n' not in out
    with pytest.raises(
        SystemExit, match=r'error: out holds labels of other settings \(n_samples=2'
    ):
        run('pssl_labels', *command[:-1], '3')
    masks = ('--masks', 'masks', '--preview', '1')
    out = run('pssl_labels', *command[:-3], 'with_masks', '--samples', '2', *masks)
    assert 'first n' in out and list(Path('with_masks/preview').rglob('*.jpg'))
    assert json.loads(Path('with_masks/pssl.json').read_text())['images'] == 6
    out = run('make_shapes', 'shapes', '--train', '1', '--val', '1', '--size', '32')
    assert 'shapes: drawn' in out
