"""HANet's recipe for the test server and its first stage: data, coarse crops, losses, windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATA_SAMPLERS, DATASETS

from mmseg_ext.config import prepare
from mmseg_ext.config.overrides import set_data_root
from mmseg_ext.datasets.streets import make_streets
from tests.tiny import CONFIG_DIR

RARE = (3, 4, 12, 14, 15, 16, 17)  # wall, fence, rider, truck, bus, train, motorcycle


def recipe(name: str) -> Config:
    return prepare.prepare_training(str(CONFIG_DIR / f'hanet/{name}.py'))


@pytest.fixture(scope='module')
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'streets'
    make_streets(root, num_train=30, num_val=10, num_extra=6, size=(64, 128), progress=False)
    return root


def train_set(cfg: Config, root: Path) -> Any:
    set_data_root(cfg, str(root))
    return DATASETS.build(
        dict(cfg.train_dataloader.dataset, cache_dir=str(root / 'cache'), num_workers=0)
    )


def test_coarse_crops_show_seven_classes_alone(streets: Path) -> None:
    cfg = recipe('rx101_deeplabv3plus_cityscapes')
    dataset = train_set(cfg, streets)
    assert (dataset.num_images, dataset.num_labels) == (40, 46)
    sampler = DATA_SAMPLERS.build(
        dict(cfg.train_dataloader.sampler, seed=0), default_args=dict(dataset=dataset)
    )
    assert 'extra_epochs' not in cfg.train_dataloader.sampler
    coarse: set[int] = set()
    for epoch in range(8):
        items = sampler.epoch_list(epoch)
        rows = dataset.centroids[items[items >= 40] - 40]
        coarse |= set(rows[rows[:, 0] >= 40, 1].tolist())
    assert coarse and coarse <= set(RARE)
    image, number = dataset.centroids[:, 0], dataset.centroids[:, 1]
    for row in np.flatnonzero((image >= 40) & np.isin(number, RARE))[:3]:
        sample = dataset[40 + row]['data_samples']
        assert sample.img_path.startswith(f'{streets}/leftImg8bit/train_extra')
        assert (sample.gt_sem_seg.data == int(number[row])).any()
        assert len(sample.row_pos) == 864


def test_the_best_resnet_trains_on_train_and_val_without_coarse_crops(streets: Path) -> None:
    cfg = recipe('r101_deeplabv3plus_cityscapes_trainval')
    dataset = train_set(cfg, streets)
    assert (dataset.num_images, dataset.num_labels) == (40, 40)
    assert cfg.train_dataloader.sampler == dict(type='ClassUniformSampler', pct=0.5)


@pytest.mark.parametrize(
    ('name', 'batch_size'),
    [('r101_deeplabv3plus_cityscapes_trainval', 3), ('rx101_deeplabv3plus_cityscapes', 2)],
)
def test_the_test_servers_recipe(name: str, batch_size: int) -> None:
    cfg, plain = recipe(name), recipe('r101_deeplabv3plus_cityscapes')
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.auto_scale_lr.base_batch_size == 12
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == 90000
    assert cfg.optim_wrapper == plain.optim_wrapper
    main, auxiliary = cfg.model.decode_head.loss_decode, cfg.model.auxiliary_head.loss_decode
    assert main.type == auxiliary.type == 'WeightedCELoss'
    assert main.class_weight == auxiliary.class_weight and len(main.class_weight) == 19
    assert (main.get('loss_weight', 1.0), auxiliary.loss_weight) == (1.0, 0.4)
    assert {part.data_prefix.img_path for part in parts_of(cfg)} == {
        'leftImg8bit/train',
        'leftImg8bit/val',
    }
    # it trains on val, which then cannot choose a checkpoint
    assert cfg.default_hooks.checkpoint.save_best is None
    sliding = recipe('r101_deeplabv3plus_cityscapes_sliding')
    assert cfg.model.test_cfg == sliding.model.test_cfg and cfg.model.test_cfg.full_height
    assert cfg.tta_pipeline == sliding.tta_pipeline


def parts_of(cfg: Config) -> list:
    return cfg.train_dataloader.dataset.dataset.datasets


def test_mapillary_trains_without_gates_and_positions_on_weighted_images() -> None:
    cfg = recipe('rx101_deeplabv3plus_mapillary')
    after = recipe('rx101_deeplabv3plus_cityscapes')
    assert cfg.model.backbone.depth == 101
    cfg.model.backbone.pop('init_cfg')
    assert cfg.model.backbone == after.model.backbone  # so that its weights fit
    assert cfg.model.decode_head.gates == () and cfg.model.num_classes == 65
    pipeline = cfg.train_dataloader.dataset.dataset.pipeline
    assert 'RowPositions' not in str(pipeline) and 'Resize' not in str(pipeline)
    assert cfg.crop_size == (864, 864)
    for head, weight in (('decode_head', 1.0), ('auxiliary_head', 0.4)):
        loss = cfg.model[head].loss_decode
        assert (loss.type, loss.reduction) == ('ImageWeightedCELoss', 'sum')
        assert loss.get('loss_weight', 1.0) == weight
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == 200000
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 12)


def test_mobilenet_on_bdd_differs_from_cityscapes_in_its_data_alone() -> None:
    cfg = recipe('mobilenetv2_deeplabv3plus_bdd100k')
    cityscapes = recipe('mobilenetv2_deeplabv3plus_cityscapes')
    assert cfg.model == cityscapes.model and cfg.optim_wrapper == cityscapes.optim_wrapper
    other = recipe('r101_deeplabv3plus_bdd100k')
    assert cfg.get('server_prefix') is other.get('server_prefix') is None
    assert cfg.val_dataloader == other.val_dataloader
    assert cfg.train_dataloader.dataset == other.train_dataloader.dataset
