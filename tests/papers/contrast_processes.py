"""What two processes do in the tests of pixel contrast: each a worker of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmseg_ext.papers.pixel_contrast import MemoryBank
from tests.engine.tiny_run import CONTEXT
from tests.tiny import IGNORE_INDEX, build, make_batch


def run_two(worker: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``worker(rank)`` returns in each of two processes."""
    children = [CONTEXT.Process(target=_run, args=(worker, rank, folder)) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
        hangs = child.exitcode is None
        child.kill()
        assert not hangs, 'a process hangs'
        assert child.exitcode == 0
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in (0, 1)]


def _run(worker: Callable[[int], Any], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(worker(rank), folder / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def labels_and_features(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (2, 4, 6), 3 of them ignored; one vector for each image and class, here and there."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    label = torch.randint(0, 4, (2, 4, 6), generator=generator)
    vectors = torch.nn.functional.normalize(torch.randn(2, 4, 5, generator=generator), dim=2)
    return label, torch.stack([v[own] for v, own in zip(vectors, label, strict=True)]).movedim(3, 1)


def fill_bank(rank: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)  # the processes draw other pixels
    bank = MemoryBank(3, 5, size=7, pixels_per_image=2)
    for step in range(3):
        bank.update(*labels_and_features(rank, step), lambda rows: rows)
    return bank.state_dict()


def train_on_other_batches(rank: int) -> dict[str, torch.Tensor]:
    """Two steps of a model; the second process has nothing but ignored pixels, then one class."""
    head = dict(type='FCNHead', channels=8, num_convs=1)
    model = build(
        dict(
            type='EncoderDecoder',
            backbone=dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8),
            decode_head=dict(
                type='PixelContrastHead',
                head=head,
                in_channels=64,
                num_classes=4,
                proj_channels=8,
                memory=dict(size=16),
                loss_contrast=dict(type='PixelContrastLoss', max_views=2),
            ),
        )
    ).train()
    wrapped = DistributedDataParallel(model)  # complains of parameters without a gradient
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, samples = make_batch(model, size=(64, 96))
    for label in (IGNORE_INDEX, 2, 1):
        if rank == 1:
            for sample in samples:
                sample.gt_sem_seg.data.fill_(label)
        losses = wrapped(images, samples, mode='loss')
        total = sum(value for name, value in losses.items() if 'loss' in name)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    names = dict(model.named_parameters()).keys() | {'decode_head.bank.rows'}
    return {name: value for name, value in model.state_dict().items() if name in names}
