"""Files for test servers: their values, names and sizes, without any label on disk."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

from mmseg_ext.config import prepare
from mmseg_ext.config.walk import leaf_datasets, nested_dicts
from mmseg_ext.datasets.cityscapes import LABEL_IDS
from mmseg_ext.errors import UserError
from mmseg_ext.evaluation.server_files import ServerFiles, write_server_files
from tests.tiny import CONFIGS
from tests.tiny_run import forget_visualizers

ROOT = Path(__file__).parents[2]
SERVED = [
    p
    for p in CONFIGS
    if any(name in p.stem for name in ('cityscapes', 'ade20k', 'mapillary'))
    and 'instance' not in p.stem  # the servers' files are labels
]
TINY = """
_base_ = ['{root}/configs/_base_/models/r18-d8.py', '{root}/configs/_base_/datasets/{data}.py',
          '{root}/configs/_base_/schedules/80k.py', '{root}/configs/_base_/default_runtime.py']
model = dict(
    num_classes={classes},
    backbone=dict(init_cfg=None, base_channels=4, stem_channels=4),
    head_level=dict(in_channels=32),
    decode_head=dict(type='FCNHead', channels=4, num_convs=1),
)
test_dataloader = dict(num_workers=0, persistent_workers=False)
"""
BERLIN = 'leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png'
SMALL = 'test_dataloader.dataset.pipeline.1.scale=(64,64)'
# Classes, root of the data, an image of the test split, values of the classes, options without and
# with --tta; the last two have the protocols of DANet and FastFCN, and of SPNet.
SPLITS: dict[str, tuple] = {
    'cityscapes': (19, 'c', BERLIN, LABEL_IDS, [], []),
    'ade20k': (
        150,
        'ade/ADEChallengeData2016',
        '../release_test/testing/ADE_test_7.jpg',
        range(1, 151),
        [SMALL],
        ['tta_pipeline.1.scale=(64,64)'],
    ),
    'mapillary_class_uniform_1024x1024': (
        65,
        'm',
        'testing/images/abc.jpg',
        range(65),
        [SMALL],
        ['tta_pipeline.1.scale=(64,64)'],
    ),
    'cityscapes_encoding_480x480': (
        19,
        'c',
        BERLIN,
        LABEL_IDS,
        [SMALL],
        ['tta_model.base_size=64', 'tta_model.crop_size=48', 'tta_model.scales=(0.5,1.0)'],
    ),
    'cityscapes_semseg_768x768': (19, 'c', BERLIN, LABEL_IDS, [], []),
}


def config_of(tmp_path, data):
    path = tmp_path / 'tiny.py'
    path.write_text(TINY.format(root=ROOT, data=data, classes=SPLITS[data][0]))
    return path


def save_weights(path, config):
    """Weights with which every pixel has the last class."""
    init_default_scope('mmseg')
    model = MODELS.build(prepare.load_config(str(config)).model)
    torch.nn.init.zeros_(model.decode_head.conv_seg.weight)
    model.decode_head.conv_seg.bias.data = torch.arange(model.num_classes).float()
    torch.save({'state_dict': model.state_dict()}, path)


@pytest.mark.parametrize('tta', [[], ['--tta']], ids=['plain', 'tta'])
@pytest.mark.parametrize('data', list(SPLITS))
def test_predictions_of_images_without_labels(data, tta, tmp_path, monkeypatch, capfd):
    _, root, image, values, *changes = SPLITS[data]
    (tmp_path / root).mkdir(parents=True)
    path = tmp_path / root / image
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (36, 52, 3), np.uint8))
    config = config_of(tmp_path, data)
    save_weights(tmp_path / 'x.pth', config)
    forget_visualizers()
    monkeypatch.chdir(tmp_path)
    options = ['--data-root', root, '--format-only', '--out', 'files', *tta]
    if changes[bool(tta)]:
        options += ['--cfg-options', *changes[bool(tta)]]
    monkeypatch.setattr(sys, 'argv', ['test.py', str(config), 'x.pth', *options])
    runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
    assert 'files for the test server: 1 in files' in capfd.readouterr().out
    (file,) = (tmp_path / 'files').iterdir()
    assert file.name == Path(image).with_suffix('.png').name
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert label.shape == (36, 52) and label.dtype == np.uint8
    assert (label == values[-1]).all()


@pytest.mark.parametrize(
    ('values', 'meta', 'expected'),
    [
        (None, {}, [0, 1, 2]),
        (None, dict(reduce_zero_label=True), [1, 2, 3]),
        ([7, 8, 33], {}, [7, 8, 33]),
    ],
)
def test_values_of_the_files(tmp_path, values, meta, expected):
    metric = ServerFiles(str(tmp_path / 'new'), values)
    metric.dataset_meta = dict(classes=('a', 'b', 'c'), **meta)
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.tensor([[[0, 1, 2]]])))
    metric.process({}, [{**sample.to_dict(), 'img_path': 'x/y.jpg'}])
    assert cv2.imread(str(tmp_path / 'new/y.png'), cv2.IMREAD_UNCHANGED).tolist() == [expected]


@pytest.mark.parametrize(
    ('path', 'tta'),
    # MagNet is released without test-time augmentation
    [
        (path, tta)
        for path in SERVED
        for tta in (False, True)
        if not tta or path.parent.name != 'magnet'
    ],
    ids=lambda value: (
        f'{value.parent.name}/{value.stem}' if isinstance(value, Path) else str(value)
    ),
)
def test_every_config_reads_no_label(path, tta, tmp_path):
    (tmp_path / 'x.pth').touch()
    cfg = prepare.prepare_test(str(path), str(tmp_path / 'x.pth'), tta=tta)
    write_server_files(cfg, str(tmp_path / 'out'))
    (leaf,) = leaf_datasets(cfg.test_dataloader)
    assert list(leaf.data_prefix) == ['img_path']
    kinds = [n['type'] for _, n in nested_dicts(leaf.pipeline) if isinstance(n.get('type'), str)]
    assert not [kind for kind in kinds if 'Label' in kind or 'SegMap' in kind]
    for _, node in nested_dicts(leaf.pipeline):
        if node.get('type') == 'TestTimeAug':
            assert all(node['transforms'])
            TRANSFORMS.build(node.to_dict() if hasattr(node, 'to_dict') else dict(node))
    values = cfg.test_evaluator['values']
    labels = getattr(DATASETS.get(leaf.type), 'label_ids', None)
    assert values == (list(labels) if labels else None)


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / 'x.pth').touch()

    def prepared(name, **options):
        path = ROOT / 'configs/fcn' / name
        return prepare.prepare_test(str(path), str(tmp_path / 'x.pth'), **options)

    with pytest.raises(UserError, match='--format-only .* name it with --out DIR'):
        write_server_files(prepared('hrnet18s_camvid.py'), None)
    for name in ('hrnet18s_camvid.py', 'hrnet18s_streets.py'):
        with pytest.raises(UserError, match='names no images for a test server'):
            write_server_files(prepared(name), 'out')
    options = {'server_prefix': 'images'}  # a folder in place of dict(img_path=FOLDER)
    with pytest.raises(UserError, match='names no images for a test server'):
        write_server_files(prepared('hrnet18s_camvid.py', cfg_options=options), 'out')
    few = prepare.prepare_test(
        str(ROOT / 'configs/danet/r50_cityscapes.py'),
        str(tmp_path / 'x.pth'),
        cfg_options={'test_dataloader.dataset.metainfo': dict(classes=('road', 'car'))},
    )
    with pytest.raises(UserError, match='remove metainfo.classes'):
        write_server_files(few, 'out')
