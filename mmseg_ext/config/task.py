"""The task of a model that has several, ``--task``."""

from mmengine.config import Config

from ..errors import UserError
from . import walk

TASKS = ('semantic', 'instance', 'panoptic')
SEGMENT_METRICS = ('PanopticQuality', 'InstanceAP')


def has_tasks(cfg: Config) -> bool:
    """Whether the model of a config has several tasks: its ``test_cfg`` names one."""
    return 'task' in (cfg.model.get('test_cfg') or {})


def set_task(cfg: Config, task: str) -> None:
    """Sets the task of a test or a prediction.

    The semantic task has no segments, so their metrics are removed.

    Args:
        cfg: Config; it is changed.
        task: One of ``TASKS``.

    Raises:
        UserError: The model has the semantic task only.
    """
    if not has_tasks(cfg):
        raise UserError(
            f'--task {task}: {cfg.model.type} has no model.test_cfg.task, so it has the semantic '
            'task only: omit --task, or take a config of configs/oneformer'
        )
    cfg.model.test_cfg.task = task
    if task == 'semantic' and cfg.get('test_evaluator'):
        metrics = walk.as_list(cfg.test_evaluator)
        cfg.test_evaluator = [m for m in metrics if m.get('type') not in SEGMENT_METRICS]
