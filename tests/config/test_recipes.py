"""The recipe of every config: its data in training and in tests."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint
from mmseg.registry import TRANSFORMS

from mmseg_ext.config.overrides import starting_weights
from mmseg_ext.config.walk import leaf_datasets, nested_dicts
from tests.tiny import CONFIG_DIR, CONFIGS

DATA_BASES = [
    path
    for path in sorted(CONFIG_DIR.glob('_base_/datasets/*.py'))
    if 'dataset' in (Config.fromfile(path).train_dataloader)
]
ALL = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
init_default_scope('mmseg')


def transforms_in(pipeline: Any) -> Iterator[dict]:
    for _, node in nested_dicts(pipeline):
        if isinstance(node.get('type'), str):
            yield node


def label_loaders(pipeline: Any) -> list[dict]:
    return [t for t in transforms_in(pipeline) if issubclass(TRANSFORMS.get(t['type']), LoadAnnotations)]


@pytest.mark.parametrize('path', [*DATA_BASES, *CONFIGS], ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_labels_are_read_alike_in_training_and_in_every_test(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert DATA_BASES
    pipelines = {
        f'{split} {leaf["type"]}': leaf['pipeline']
        for split in ('train', 'val', 'test')
        for leaf in leaf_datasets(cfg[f'{split}_dataloader'])
        if leaf['type'] != 'PseudoLabelDataset'
    }
    if cfg.get('tta_pipeline'):
        pipelines['tta'] = cfg.tta_pipeline
    loaders = {name: label_loaders(pipeline) for name, pipeline in pipelines.items()}
    expected = loaders[next(name for name in loaders if name.startswith('val'))]
    assert len(expected) == 1
    assert loaders == dict.fromkeys(loaders, expected)
    types = {name.partition(' ')[2] for name in loaders} - {''}
    assert len(types) == 1


def test_starting_weights_need_no_package_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {
        address for path in CONFIGS for address in starting_weights(Config.fromfile(path))
    }
    assert addresses
    files = {}
    for name in ('torchvision', 'mmpretrain', 'mmcls', 'timm'):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    for address in sorted(addresses):

        def note(url: str, *args: object, name: str = address, **kwargs: object) -> dict:
            files[name] = url
            return dict(state_dict={})

        monkeypatch.setattr(checkpoint, 'load_from_http', note)
        monkeypatch.setitem(checkpoint.CheckpointLoader._schemes, 'https://', note)
        checkpoint.CheckpointLoader.load_checkpoint(address)
    assert files.keys() == addresses
    assert all(url.startswith('https://') for url in files.values())
