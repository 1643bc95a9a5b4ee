"""PASCAL-Context and COCO-Stuff: data of the bases, numbers of the recipes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmseg_ext.config import prepare
from tests.tiny import CONFIG_DIR

BASES = sorted(
    path
    for kind in ('pascal_context', 'coco_stuff10k')
    for path in CONFIG_DIR.glob(f'_base_/datasets/{kind}*.py')
)
SPLITS = dict(train=3, val=2, test=2)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both data sets, whose labels hold all values from 0 in blocks."""
    root = tmp_path_factory.mktemp('data')
    context, coco = root / 'VOC2010', root / 'coco_stuff10k'
    image = np.random.default_rng(0).integers(0, 255, (120, 180, 3), dtype=np.uint8)

    def label(count: int) -> np.ndarray:
        values = np.arange(6 * 30).clip(max=count - 1).reshape(6, 30).astype(np.uint8)
        return values.repeat(20, 0).repeat(6, 1)

    for i in range(6):  # a picture that is in no list
        write(context / f'JPEGImages/{i}.jpg', image)
        write(context / f'SegmentationClassContext/{i}.png', label(60))
    lists = context / 'ImageSets/SegmentationContext'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0\n1\n2\n')
    (lists / 'val.txt').write_text('3\n4\n')
    for split, count in (('train2014', 3), ('test2014', 2)):
        for i in range(count):
            write(coco / f'images/{split}/{i}.jpg', image)
            write(coco / f'annotations/{split}/{i}_labelTrainIds.png', label(172))
    return dict(pascal=context, coco=coco)


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_bases_read_the_hosts_folders(path: Path, folders: dict[str, Path]) -> None:
    cfg = Config.fromfile(path)
    assert cfg.get('server_prefix') is None  # not the test server of a base
    kind = path.stem.partition('_')[0]
    classes = 171 if kind == 'coco' else 59 if 'context59' in path.stem else 60
    reduced = classes != 60
    values = [*range(classes), *([255] if reduced else [])]  # the background or unlabelled pixels
    for split, count in SPLITS.items():
        dataset = DATASETS.build(
            dict(cfg[f'{split}_dataloader'].dataset, data_root=str(folders[kind]))
        )
        assert len(dataset) == count
        assert len(dataset.metainfo['classes']) == classes
        np.random.seed(0)
        item = dataset[count - 1]
        label = item['data_samples'].gt_sem_seg.data
        if split == 'train':
            assert max(item['inputs'].shape[1:]) == cfg.crop_size[0]
            assert set(label.unique().tolist()) <= {*values, 255}
        else:
            assert label.unique().tolist() == values
            assert label.shape[1:] == (120, 180)
            assert label[0, 0, 0] == (255 if reduced else 0)


# Classes, crop, images of a batch, learning rate, epochs or iterations: the recipes' numbers.
RECIPES = {
    'fastfcn/r50_jpu_encnet_pascal_context': (59, 480, 16, 0.001, 80),
    'fastfcn/r50_jpu_psp_pascal_context': (59, 480, 16, 0.001, 80),
    'fastfcn/r50_jpu_aspp_pascal_context': (59, 480, 16, 0.001, 80),
    'fastfcn/r101_jpu_encnet_pascal_context': (59, 480, 16, 0.001, 80),
    'danet/r101_pascal_context': (60, 480, 16, 0.001, 240),
    'danet/r101_coco_stuff10k': (171, 480, 16, 0.001, 180),
    'cpnet/r101_pascal_context': (60, 512, 16, 0.01, 80000),
    'spnet/r101_pascal_context': (60, 480, 16, 0.001, 100),
    'pixel_contrast/hrnet_pascal_context': (59, 520, 8, 0.01, 60000),
    'pixel_contrast/hrnet_ocr_pascal_context': (59, 520, 8, 0.01, 60000),
    'pixel_contrast/hrnet_coco_stuff10k': (171, 520, 8, 0.01, 60000),
    'pixel_contrast/hrnet_ocr_coco_stuff10k': (171, 520, 8, 0.01, 60000),
}


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_have_the_numbers_of_their_papers(name: str) -> None:
    classes, crop, batch, rate, length = RECIPES[name]
    cfg = prepare.prepare_training(str(CONFIG_DIR / f'{name}.py'))
    split = cfg.train_dataloader.dataset
    assert cfg.model.num_classes == classes
    assert len(DATASETS.get(split.type).METAINFO['classes']) == classes
    assert cfg.crop_size == (crop, crop)
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.optim_wrapper.optimizer.lr == rate
    loop = cfg.train_cfg
    assert loop.get('max_epochs', loop.get('max_iters')) == length
    assert cfg.param_scheduler[-1].end == length


def test_every_recipe_of_these_data_sets_is_checked() -> None:
    names = {
        f'{path.parent.name}/{path.stem}'
        for path in CONFIG_DIR.glob('*/*.py')
        if path.parent.name != '_base_' and ('context' in path.stem or 'coco_stuff' in path.stem)
    }
    assert names == set(RECIPES)


@pytest.mark.parametrize('name', ['r101_pascal_context', 'r101_coco_stuff10k'])
def test_danet_augments_as_its_code_of_2018(name: str) -> None:
    cfg = prepare.load_config(str(CONFIG_DIR / f'danet/{name}.py'))
    pipeline = cfg.train_dataloader.dataset.pipeline
    (resize,) = (step for step in pipeline if step.type == 'RandomResize')
    assert (min(resize.scale), resize.ratio_range) == (520, (0.75, 2.0))
    assert 'Blur' not in str(pipeline)
    assert cfg.model.backbone.multi_grid == (4, 8, 16)
    assert (cfg.tta_model.type, cfg.tta_model.stride) == ('EncodingTTAModel', 240)
    assert len(cfg.tta_model.scales) == 8


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('pixel_contrast')])
def test_pixel_contrast_has_the_released_temperature_and_augmentation(name: str) -> None:
    cfg = prepare.load_config(str(CONFIG_DIR / f'{name}.py'))
    contrast = cfg.model.decode_head.loss_contrast
    assert contrast == dict(type='PixelContrastLoss', temperature=0.07)  # views, weight: defaults
    assert 'memory' not in cfg.model.decode_head
    assert cfg.model.data_preprocessor.bgr_to_rgb is False
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline[2:-1]]
    assert kinds == ['RandomScaleCrop', 'RandomFlip', 'ShiftBrightness']


@pytest.mark.parametrize('depth', [50, 101])
def test_fastfcns_second_stage_trains_on_train_and_val(depth: int) -> None:
    name = f'fastfcn/r{depth}_jpu_encnet_ade20k'
    first = prepare.prepare_training(str(CONFIG_DIR / f'{name}.py'))
    cfg = prepare.prepare_training(str(CONFIG_DIR / f'{name}_trainval.py'))
    assert cfg.model == first.model and cfg.model.backbone.depth == depth
    assert f'{name}.py' in cfg.initial_weights
    parts = cfg.train_dataloader.dataset.datasets
    assert [part.data_prefix.img_path for part in parts] == ['images/training', 'images/validation']
    for part in parts:
        assert part.pipeline == first.train_dataloader.dataset.pipeline
    assert (cfg.optim_wrapper.optimizer.lr, first.optim_wrapper.optimizer.lr) == (0.001, 0.01)
    assert cfg.optim_wrapper.paramwise_cfg == first.optim_wrapper.paramwise_cfg
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].end == 20
    assert cfg.default_hooks.checkpoint.save_best is None
