"""Every model on images and labels that are tiny, odd or damaged: a right result or one sentence.

Images go the way of a program: the data preprocessor, then ``predict`` in eval mode, or ``loss``,
a step of an optimiser and the guard of the training in train mode.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmseg_ext
from mmseg_ext.checkpoints.finite import are_finite, float_tensors
from mmseg_ext.engine.runtime_info_hook import STATE, DeferredRuntimeInfoHook
from tests.reliability.tally import RIGHT, SENTENCE, Tally
from tests.tiny import CONFIGS, IGNORE_INDEX, different_configs, nodes, objects_of_classes, tiny

Size = tuple[int, int]
ORDINARY: Size = (37, 53)
PIPELINE = [dict(type='LoadImage'), dict(type='PackSegInputs')]
# Half precision is slow on a CPU. No map has a single column: PyTorch 2.13 leaves gradients of such
# bf16 convolutions uninitialised.
SMALL: Size = (40, 64)


def test_every_part_of_every_config_is_in_a_model_of_the_matrix() -> None:
    def parts(paths: list[Path]) -> set[str]:
        return {str(node['type']) for path in paths for node in nodes(path) if 'type' in node}

    assert parts(different_configs()) == parts(CONFIGS)
    assert {path.parent for path in different_configs()} == {path.parent for path in CONFIGS}


def same(x: Tensor) -> Tensor:
    return x


@dataclass
class Cell:
    """Images, labels and precision of a case, and how it has to end; None for both ways."""

    name: str
    predict: str | None = RIGHT
    loss: str | None = RIGHT
    sizes: tuple[Size, ...] = (ORDINARY, ORDINARY)
    image: Callable[[Tensor], Tensor] = same
    label: Callable[[Tensor], Tensor] = same
    dtype: torch.dtype | None = None


def with_value(number: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x = x.clone() if x.dtype == torch.int64 else x.float()
        x[0, 0, 0] = number
        return x

    return change


def brighter(x: Tensor) -> Tensor:
    return 10_000 * x.float()


CELLS = [
    Cell('1x1', None, None, sizes=((1, 1),) * 2),
    Cell('1xN', None, None, sizes=((1, 53),) * 2),
    Cell('Nx1', None, None, sizes=((37, 1),) * 2),
    Cell('37x53'),
    Cell('16x256', RIGHT, None, sizes=((16, 256),) * 2),
    Cell('grey', None, None, image=lambda x: x[:1]),
    Cell('4 channels', SENTENCE, SENTENCE, image=lambda x: x[[0, 1, 2, 0]]),
    Cell('16 bit', SENTENCE, SENTENCE, image=lambda x: (x.int() * 257).to(torch.uint16)),
    Cell('NaN', SENTENCE, SENTENCE, image=with_value(float('nan'))),
    Cell('infinite', SENTENCE, SENTENCE, image=with_value(float('inf'))),
    Cell('empty batch', SENTENCE, SENTENCE, sizes=()),
    Cell('batch of one', RIGHT, None, sizes=(ORDINARY,)),
    Cell('label 200', RIGHT, SENTENCE, label=with_value(200)),
    Cell('label -1', RIGHT, SENTENCE, label=with_value(-1)),
    Cell('all ignored', label=lambda x: torch.full_like(x, IGNORE_INDEX)),
    Cell('one class', label=torch.zeros_like),
    Cell('absent classes', label=lambda x: x.clamp(max=1)),
    Cell('mixed sizes', SENTENCE, RIGHT, sizes=(ORDINARY, (29, 60))),
    *(
        Cell(name, *outcome, sizes=(SMALL, SMALL), image=image, dtype=dtype)
        for name, dtype, image, *outcome in (
            ('bf16', torch.bfloat16, same),
            ('bf16 x 10,000', torch.bfloat16, brighter, None, None),
            ('fp16', torch.float16, same, None, RIGHT),  # logits of random weights may overflow
            ('fp16 x 10,000', torch.float16, brighter, None, None),
        )
    ),
]


def draw(size: Size, seed: int, classes: int) -> tuple[Tensor, Tensor]:
    """A uint8 image (3, h, w) of coloured blocks, and their classes (1, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    blocks = torch.randint(classes, (1, h // 8 + 1, w // 8 + 1), generator=generator)
    label = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].contiguous()
    colour = torch.randint(40, 216, (classes, 3), generator=generator)
    noise = torch.randint(-40, 40, (3, h, w), generator=generator)
    return (colour[label[0]].permute(2, 0, 1) + noise).to(torch.uint8), label


def make_data(cell: Cell, classes: int) -> dict[str, list]:
    """Images and samples as a data loader gives them."""
    images, samples = [], []
    for seed, size in enumerate(cell.sizes):
        image, label = draw(size, seed, classes)
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, img_path='a.png')
        images.append(cell.image(image))
        data = PixelData(data=cell.label(label))
        objects = objects_of_classes(data.data[0])
        samples.append(SegDataSample(gt_sem_seg=data, gt_instances=objects, metainfo=meta))
    return dict(inputs=images, data_samples=samples)


def autocast(cell: Cell) -> Any:
    return torch.autocast('cpu', cell.dtype) if cell.dtype else nullcontext()


@torch.no_grad()
def predicts(model: nn.Module, cell: Cell) -> None:
    with autocast(cell):
        results = model.eval().test_step(make_data(cell, model.num_classes))
    assert len(results) == len(cell.sizes)
    for size, result in zip(cell.sizes, results, strict=True):
        check_result(model, size, result.seg_logits.data, result.pred_sem_seg.data)
    if cell.dtype and cell.image is same:
        check_precision(model, cell, torch.stack([x.seg_logits.data.float() for x in results]))


def check_precision(model: nn.Module, cell: Cell, logits: Tensor) -> None:
    """Compares the error of autocast with the errors of weights that are rounded once.

    A deep network amplifies some roundings more than others, and which ones depends on the CPU: the
    weights are also shifted at random by as much as rounding does, and the largest error counts.
    """
    data = make_data(cell, model.num_classes)

    def predicted() -> Tensor:
        samples = model.test_step(copy.deepcopy(data))
        return torch.stack([sample.seg_logits.data for sample in samples])

    exact, weights = predicted(), [parameter.clone() for parameter in model.parameters()]
    unit, errors = torch.finfo(cell.dtype).eps / 2, []
    for draw in range(4):
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            shifted = weight * (1 + unit * (2 * torch.rand_like(weight) - 1))
            parameter.copy_(shifted if draw else weight.to(cell.dtype))
        errors.append((predicted() - exact).norm())
    assert (logits - exact).norm() <= 6 * max(errors)


def check_result(model: nn.Module, size: Size, logits: Tensor, label: Tensor) -> None:
    assert logits.shape == (model.out_channels, *size) and logits.isfinite().all()
    assert label.shape == (1, *size)
    assert torch.equal(logits.argmax(0, keepdim=True), label)


def learns(model: nn.Module, cell: Cell) -> None:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)
    optimizer.zero_grad()
    with autocast(cell):
        data = model.data_preprocessor(make_data(cell, model.num_classes), True)
        loss, logged = model.parse_losses(model(**data, mode='loss'))
    # Training in fp16 has a loss scale, which shrinks until gradients of 16 bits are finite.
    scale = 2.0**-8 if cell.dtype == torch.float16 else 1.0
    (loss * scale).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    optimizer.step()
    guard(model, loss)
    assert all(value.isfinite().all() for value in logged.values())
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients


def arrays() -> dict[str, tuple[np.ndarray, str]]:
    """Arrays for ``mmseg_ext.predict`` by name, and how a call has to end."""
    image = draw(ORDINARY, 0, 5)[0].permute(1, 2, 0).contiguous().numpy()
    return {
        'array': (image, RIGHT),
        'array, grey': (image[..., 0], SENTENCE),
        'array, 4 channels': (image[..., [0, 1, 2, 0]], SENTENCE),
        'array, 16 bit': (image.astype(np.uint16) * 257, SENTENCE),
        'array, NaN': (np.full_like(image, np.nan, dtype=np.float32), SENTENCE),
    }


def predicts_array(model: nn.Module, image: np.ndarray) -> None:
    classes, probabilities = mmseg_ext.predict(model, image)
    assert classes.shape == ORDINARY and probabilities.shape == (model.num_classes, *ORDINARY)
    chosen = probabilities.gather(0, classes[None])[0]
    torch.testing.assert_close(chosen, probabilities.amax(0), rtol=1e-6, atol=0)  # or equal to it
    if model.num_classes > 1:  # else a pixel has the class or has none
        torch.testing.assert_close(probabilities.sum(0), torch.ones(ORDINARY))


def guard(model: nn.Module, loss: Tensor) -> None:
    """What a training checks after a step."""
    hook = DeferredRuntimeInfoHook()
    weights = list(float_tensors(model.state_dict()).values())
    hook.steps = [(1, ['a.png'], {'loss': loss, STATE: are_finite(weights)})]
    hook.read_losses(SimpleNamespace(model=model, message_hub=MessageHub.get_instance('models')))


def calibrated(path: Path) -> nn.Module:
    """The config's model, shrunk, with the norms' statistics of a batch."""
    model = tiny(path)
    if model.data_preprocessor.size is not None:  # the crop of the recipe is many times larger
        model.data_preprocessor.size = (64, 64)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        data = make_data(Cell('ordinary'), model.num_classes)
        model.train()(**model.data_preprocessor(data, True), mode='loss')
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def state_of(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@torch.no_grad()
def restore(model: nn.Module, saved: list[Tensor]) -> None:
    torch._foreach_copy_(state_of(model), saved)


@pytest.mark.parametrize('path', different_configs(), ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_a_model_is_right_or_says_what_is_wrong(path: Path, request) -> None:
    tally = Tally('models', request)
    model = calibrated(path)
    saved = [x.detach().clone() for x in state_of(model)]
    for cell in CELLS:
        for way, expected in ((predicts, cell.predict), (learns, cell.loss)):
            restore(model, saved)
            tally.run(f'{cell.name}, {way.__name__}', functools.partial(way, model, cell), expected)
    model.cfg = Config(
        dict(test_dataloader=dict(dataset=dict(type='BaseSegDataset', pipeline=PIPELINE)))
    )
    restore(model, saved)
    for name, (array, outcome) in arrays().items():
        tally.run(name, functools.partial(predicts_array, model.eval(), array), outcome)
    tally.check()
