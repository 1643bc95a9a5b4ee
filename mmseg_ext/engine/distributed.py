"""Several processes: on GPUs as the host does it, and on CPUs, where the host fails."""

import gc
import os
from typing import Any

import torch
from mmengine.config import Config
from torch import distributed as dist

from ..errors import UserError


def init_dist_for_cpu_or_gpu(cfg: Config, launcher: str) -> None:
    """Prepares a config for several processes; to be called before the Runner is built.

    On GPUs the Runner does the rest. On CPUs this starts gloo, and ``cfg`` (changed in place) gets
    BatchNorm for SyncBN, which exists for GPUs only. Safe to call twice.

    Raises:
        ValueError: more processes than GPUs, a launcher other than ``pytorch`` on CPUs, or
            ``pytorch`` without torchrun.
    """
    if launcher == 'none':
        return
    check_torchrun(launcher)
    if torch.cuda.is_available():
        rank, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
        if rank >= gpus:
            raise UserError(f'process {rank + 1} has no GPU: use at most {gpus} processes here')
        return
    if launcher != 'pytorch':
        raise UserError(
            f'launcher={launcher} needs GPUs: on CPUs use tools/dist_train.sh (torchrun)'
        )
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    _replace_sync_bn(cfg.model)


def check_torchrun(launcher: str) -> None:
    """Raises ValueError where torchrun has to have started this process, and has not."""
    if launcher == 'pytorch' and not dist.is_initialized() and 'LOCAL_RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch is for processes that torchrun starts: use tools/dist_train.sh or '
            'tools/dist_test.sh'
        )


def leave_process_group() -> None:
    """Ends the process group; call it where nothing refers to the Runner any more.

    A program that exits with a gloo group alive may abort, and a group that ends before the model
    wrapped for it waits for ever.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def _replace_sync_bn(node: Any) -> None:
    if isinstance(node, dict):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            _replace_sync_bn(child)
