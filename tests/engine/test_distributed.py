import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_ext.engine import init_dist_for_cpu_or_gpu
from tests.engine.tiny_run import ROOT, config, last_checkpoint


def test_one_process_changes_nothing():
    cfg = Config(dict(model=dict(norm_cfg=dict(type='SyncBN'))))
    init_dist_for_cpu_or_gpu(cfg, 'none')
    assert cfg.to_dict() == dict(model=dict(norm_cfg=dict(type='SyncBN')))


def test_processes_on_cpus_get_batch_norm(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    norm = dict(type='SyncBN', requires_grad=True)
    cfg = Config(
        dict(model=dict(backbone=dict(norm_cfg=norm), auxiliary_head=[dict(norm_cfg=norm)]))
    )
    init_dist_for_cpu_or_gpu(cfg, 'pytorch')
    assert cfg.model.backbone.norm_cfg.type == cfg.model.auxiliary_head[0].norm_cfg.type == 'BN'
    assert cfg.model_wrapper_cfg.device_ids is None


def test_launchers_for_gpus_are_refused_on_cpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='launcher=slurm needs GPUs'):
        init_dist_for_cpu_or_gpu(Config(dict(model=dict())), 'slurm')


def test_a_process_that_torchrun_did_not_start_is_told(monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    with pytest.raises(ValueError, match=r'torchrun starts: use tools/dist_train\.sh'):
        init_dist_for_cpu_or_gpu(Config(dict(model=dict())), 'pytorch')


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_the_scripts_say_how_they_are_used(tool):
    for args, code in ((['--help'], 0), ([], 2), (['config.py'], 2)):
        command = ['bash', ROOT / f'tools/dist_{tool}.sh', *args]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code
        (line,) = (done.stderr if code else done.stdout).splitlines()
        assert line.startswith(f'usage: bash tools/dist_{tool}.sh CONFIG ')


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ValueError, match='process 3 has no GPU: use at most 2 processes here'):
        init_dist_for_cpu_or_gpu(Config(dict(model=dict())), 'pytorch')


def test_the_script_trains_on_two_processes(folder: Path, tmp_path: Path):
    cfg = config(folder / 'data', tmp_path / 'run', custom_hooks=[])
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / 'tiny.py')
    env = {**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': ''}
    command = ['bash', ROOT / 'tools/dist_train.sh', tmp_path / 'tiny.py', '2']
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert last_checkpoint(tmp_path / 'run')['meta']['iter'] == 3  # of 10 images, 2 a process
