"""The task of a test and of a prediction."""

import pytest

from mmseg_ext.config import prepare
from mmseg_ext.config.task import set_task
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR

ONEFORMER = str(CONFIG_DIR / 'oneformer/r50_cityscapes.py')
DANET = str(CONFIG_DIR / 'danet/hrnet18s_camvid.py')


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'weights.pth'
    path.touch()
    return str(path)


def metrics(cfg):
    return [metric['type'] for metric in cfg.test_evaluator]


def test_the_semantic_task_has_no_scores_of_segments(checkpoint):
    every = ['ClassIoUMetric', 'PanopticQuality', 'InstanceAP']
    cfg = prepare.prepare_test(ONEFORMER, checkpoint)
    assert cfg.model.test_cfg.task == 'panoptic' and metrics(cfg) == every
    cfg = prepare.prepare_test(ONEFORMER, checkpoint, task='instance')
    assert cfg.model.test_cfg.task == 'instance' and metrics(cfg) == every
    assert cfg.model.test_cfg.max_instances == 150
    cfg = prepare.prepare_test(ONEFORMER, checkpoint, task='semantic')
    assert cfg.model.test_cfg.task == 'semantic' and metrics(cfg) == every[:1]


def test_augmentation_has_the_semantic_task(checkpoint):
    cfg = prepare.prepare_test(ONEFORMER, checkpoint, tta=True)
    assert cfg.model.module.test_cfg.task == 'semantic' and metrics(cfg) == ['ClassIoUMetric']
    with pytest.raises(UserError, match='--tta averages scores of classes, not .* panoptic'):
        prepare.prepare_test(ONEFORMER, checkpoint, tta=True, task='panoptic')


def test_a_model_of_one_task_refuses_others():
    with pytest.raises(UserError, match='--task panoptic: WindowedEncoderDecoder has no .*task'):
        set_task(prepare.load_config(DANET), 'panoptic')
