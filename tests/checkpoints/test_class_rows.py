"""A training from weights of other classes keeps the rows of the classes that both have."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.apis import init_model
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.checkpoints.class_rows import class_names, matching_rows, take_rows_by_name
from mmseg_ext.config import prepare
from mmseg_ext.datasets.camvid import CamVidDataset
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from tests.tiny_run import forget_visualizers, write_config, write_folder

THEIRS = ['Floor', 'dog', 'wall', 'sky']  # the data has wall, floor and cat


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data')))


@pytest.fixture
def weights(config: str) -> dict[str, Tensor]:
    """Weights of a model of four classes, in four.pth."""
    cfg = Config.fromfile(config).model
    cfg.decode_head.num_classes = 4
    state = MODELS.build(cfg).state_dict()
    torch.save(state, 'four.pth')
    return state


def start(config: str, run: Any = launch.dry_run, **options: Any) -> None:
    forget_visualizers()
    run(prepare.prepare_training(config, **{'init': 'four.pth'} | options))


def trained_without_learning(config: str, **options: Any) -> dict[str, Tensor]:
    still = {'optim_wrapper.optimizer.lr': 0.0}
    start(config, launch.train, max_iters=1, cfg_options=still, **options)
    return torch.load('work_dirs/tiny/iter_1.pth')['state_dict']


def test_a_training_starts_from_the_rows_of_the_same_names(
    config: str, weights: dict[str, Tensor], capsys: pytest.CaptureFixture
) -> None:
    state = trained_without_learning(config, init_classes=THEIRS)
    for name in ('decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'):
        assert torch.equal(state[name][:2], weights[name][[2, 0]])
    random = state['decode_head.conv_seg.weight'][2]
    assert not any(torch.equal(random, row) for row in weights['decode_head.conv_seg.weight'])
    rows = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {'wall row 2, wall', 'floor row 0, Floor', 'cat random weights'} <= set(rows)


def test_a_checkpoint_names_its_classes(config: str, weights: dict[str, Tensor]) -> None:
    meta = dict(dataset_meta=dict(classes=THEIRS))
    torch.save(dict(state_dict=weights, meta=meta), 'four.pth')
    state = trained_without_learning(config, init_classes=[])
    name = 'decode_head.conv_seg.bias'
    assert torch.equal(state[name][:2], weights[name][[2, 0]])
    start(config, launch.train, max_iters=2, init_classes=[], resume='auto')
    resumed = torch.load('work_dirs/tiny/iter_2.pth')['state_dict'][name]
    assert not torch.equal(resumed[0], resumed[1])
    torch.testing.assert_close(resumed, state[name], rtol=0, atol=0.05)


def test_camvid_takes_the_rows_of_cityscapes() -> None:
    theirs, ours = class_names(['cityscapes'], ''), CamVidDataset.METAINFO['classes']
    assert matching_rows(theirs, ours) == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18]
    assert matching_rows(ours, theirs)[8] == 5  # tree for vegetation
    assert matching_rows(['tree', 'vegetation'], ['tree', 'car']) == [0, None]


def test_classifiers_inside_heads_take_rows_too(config: str) -> None:
    cfg = Config.fromfile(config).model
    cfg.auxiliary_head = dict(cfg.decode_head)
    model = MODELS.build(cfg)
    before = model.state_dict()['auxiliary_head.conv_seg.bias'].clone()
    take_rows_by_name(model, ['cat', 'floor'], ['wall', 'floor', 'cat'])
    model.load_state_dict({'auxiliary_head.conv_seg.bias': torch.tensor([5.0, 6.0])}, strict=False)
    assert model.auxiliary_head.conv_seg.bias.tolist() == [before[0].item(), 6.0, 5.0]


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (dict(init_classes=['citiscapes']), 'citiscapes: no data set has this name: give citysc'),
        (dict(init_classes=['xyz']), 'xyz: no data set has this name: give cityscapes, ade20k'),
        (dict(init_classes=['wall', 'floor', 'wall']), 'names wall twice'),
        (dict(init_classes=[]), 'four.pth does not name its classes: give their names'),
        (
            dict(init_classes=['a', 'b']),
            r'none of a, b, ... is a class of the data, .* wall, floor',
        ),
        (
            dict(init_classes=['wall', *'abcd']),
            'names 5 classes, but decode_head.conv_seg.* 4 rows',
        ),
        (dict(init_classes=['wall', 'cat'], init='none'), 'does not start from a model'),
        (dict(init_classes=['wall', 'cat'], init='config'), 'does not start from a model'),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    config: str, weights: dict[str, Tensor], options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=f'^--init-classes.*{sentence}'):
        start(config, **options)


def test_a_backbone_has_no_classifier(config: str) -> None:
    torch.save(init_model(config, device='cpu').backbone.state_dict(), 'four.pth')
    with pytest.raises(UserError, match='does not start from a model'):
        start(config, init_classes=['cityscapes'])


def test_the_example_of_the_page_is_complete() -> None:
    """The config of CamVid has the widths of the weights for Cityscapes."""
    cfg = Config.fromfile(Path(__file__).parents[2] / 'configs/fcn/espnetv2_camvid.py').model
    cityscapes = Config.fromfile(
        Path(__file__).parents[2] / 'configs/dsrl/espnetv2_cityscapes.py'
    ).model
    shapes = [
        {name: x.shape for name, x in MODELS.build(model).state_dict().items()}
        for model in (cfg, cityscapes)
    ]
    differ = {name for name in shapes[0] if shapes[0][name] != shapes[1].get(name)}
    assert all(re.search('conv_seg', name) for name in differ) and len(differ) == 2
