"""Private attributes of the host that ``mmseg_ext/host.py`` reaches into are there."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, InfiniteSampler, RepeatDataset
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader, Runner
from mmengine.structures import PixelData
from mmseg.apis import MMSegInferencer, inference
from mmseg.datasets import BaseSegDataset
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_ext import host

ADVICE = 'this version of the host lacks it: adapt mmseg_ext/host.py'


def test_a_config_takes_another_file_name() -> None:
    cfg = Config(dict(a=1))
    host.set_config_filename(cfg, 'b.py')
    assert cfg.filename == 'b.py', f'Config._filename: {ADVICE}'


@pytest.mark.parametrize('steps', [1, 4])
def test_updates_of_several_iterations_are_counted(steps: int) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulative_counts=steps)
    message = f'OptimWrapper._accumulative_counts: {ADVICE}'
    assert host.count_accumulated_steps(wrapper) == steps, message


@pytest.mark.parametrize('apart', [False, True])
def test_a_runner_tells_whether_seeds_differ(apart: bool, tmp_path: Path) -> None:
    runner = Runner(
        nn.Linear(1, 1),
        str(tmp_path),
        randomness=dict(seed=0, diff_rank_seed=apart),
        experiment_name=f'apart_{apart}',
        log_level='ERROR',
    )
    assert host.seeds_ranks_apart(runner) is apart, f'Runner._randomness_cfg: {ADVICE}'


def test_a_sampler_begins_again() -> None:
    sampler = InfiniteSampler(range(5), seed=1)
    first = [index for index, _ in zip(sampler, range(3), strict=False)]
    host.restart_sampler(sampler)
    again = [index for index, _ in zip(sampler, range(3), strict=False)]
    assert first == again, f'InfiniteSampler._indices_of_rank: {ADVICE}'


def test_a_preprocessor_tells_whether_it_normalizes() -> None:
    message = f'SegDataPreProcessor._enable_normalize: {ADVICE}'
    assert not host.normalizes(SegDataPreProcessor()), message
    assert host.normalizes(SegDataPreProcessor(mean=[0.0], std=[1.0])), message


def test_a_preprocessor_tells_whether_it_swaps_channels() -> None:
    message = f'SegDataPreProcessor._channel_conversion: {ADVICE}'
    assert not host.swaps_channels(SegDataPreProcessor()), message
    assert host.swaps_channels(SegDataPreProcessor(bgr_to_rgb=True)), message


def test_the_host_reads_checkpoints_as_asked() -> None:
    def load_from_nothing(path: str, map_location: object) -> dict:
        return dict(path=path)

    before = CheckpointLoader._schemes['']
    with host.reads_checkpoints_by(load_from_nothing):
        read = CheckpointLoader.load_checkpoint('x.pth')
    assert read == dict(path='x.pth'), f'CheckpointLoader._schemes: {ADVICE}'
    assert CheckpointLoader._schemes[''] is before


def test_wrappers_of_data_sets_tell_the_index_inside() -> None:
    images = [BaseDataset(lazy_init=True) for _ in range(2)]
    for dataset in images:
        dataset._fully_initialized, dataset.data_list = True, [{}] * 3
        dataset.serialize_data = False
    message = f'_get_ori_dataset_idx: {ADVICE}'
    assert host.wrapped_index(ConcatDataset(images), 4) == (1, 1), message
    assert host.wrapped_index(RepeatDataset(images[0], 2), 4) == 1, message


def test_a_data_set_tells_whether_it_is_a_subset() -> None:
    for indices in (None, 2):
        dataset = BaseSegDataset(lazy_init=True, indices=indices)
        assert host.is_subset(dataset) == (indices is not None), f'_indices: {ADVICE}'


def test_a_runner_tells_whether_its_training_is_built(tmp_path: Path) -> None:
    runner = Runner(nn.Linear(1, 1), str(tmp_path), experiment_name='no_training')
    assert not host.has_training(runner), f'Runner._train_loop: {ADVICE}'


def test_a_head_stacks_the_labels_of_a_batch() -> None:
    head = FCNHead(in_channels=1, channels=1, num_classes=2, num_convs=0, concat_input=False)
    label = torch.zeros(1, 2, 3, dtype=torch.long)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for _ in range(2)]
    assert host.labels_of_batch(head, samples).shape == (2, 2, 3), f'_stack_batch_gt: {ADVICE}'


def test_the_host_asks_for_loaders_where_they_are_found_by_class() -> None:
    host.find_loaders_by_class()
    assert inference._preprare_data.__module__ == host.__name__, f'_preprare_data: {ADVICE}'
    assert '_preprare_data(' in inspect.getsource(inference.inference_model), ADVICE
    source = inspect.getsource(MMSegInferencer._init_pipeline)
    assert '_get_transform_idx(' in source, f'MMSegInferencer._get_transform_idx: {ADVICE}'


def test_a_registry_imports_further_modules() -> None:
    registry = Registry('things', locations=['json'])
    host.add_locations(registry, ['json', 'csv'])
    assert registry._locations == ['json', 'csv'], f'Registry._locations: {ADVICE}'


def test_the_host_prints_no_debug_message() -> None:
    code = "import mmseg_ext; from mmseg.registry import DATASETS; DATASETS.get('ADE20KDataset')"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == ''
