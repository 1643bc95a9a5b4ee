"""Training of a small classifier on class folders, to explain their images."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from rich.progress import track
from torch import Tensor, nn

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.datasets.transforms import read_image

from ...errors import UserError
from .classifiers import CENTRED, Classifier
from .label_maker import find_classes

SHIFT = 8  # largest random shift of a training picture, in pixels


def train_classifier(
    images: Path,
    out: Path,
    *,
    val: Path | None = None,
    width: float = 0.5,
    size: int = 96,
    epochs: int = 6,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str = 'cpu',
) -> float:
    """Trains an EfficientNet-Lite from random weights and writes it with its classes.

    Args:
        images: Folder of class folders.
        out: Path of the file that ``trained_classifier`` reads.
        val: Folder of the same class folders for the accuracy; None takes the training images.
        width: Factor of the network's channels.
        size: Side in pixels of the middle square that pictures are resized to.
        epochs: Number of passes over the images.
        batch_size: Images of a step.
        learning_rate: Largest rate of AdamW, in a single cycle.
        seed: Seed of weights and order.
        device: Device: ``cpu``, ``cuda``, ...

    Returns:
        Fraction of the images of ``val`` whose class is predicted.

    Raises:
        UserError: There are fewer than two classes, ``val`` has other folders, or a file cannot be
            read.
    """
    names, classes = find_classes(images)
    if len(classes) < 2:
        raise UserError(
            f'{images} has the class folder {classes[0]} only: a classifier needs two or more'
        )
    if val is not None and (folders := find_classes(val)[1]) != classes:
        differing = sorted(set(folders) ^ set(classes))
        raise UserError(f'{val} has other class folders than {images}: {", ".join(differing[:3])}')
    torch.manual_seed(seed)
    model = dict(
        type='EfficientNetLiteClassifier',
        num_classes=len(classes),
        widen_factor=width,
        deepen_factor=0.5,
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.1),
    )
    module = MODELS.build(model).to(device, memory_format=torch.channels_last)
    classifier = Classifier(module, out.stem, size, **CENTRED, classes=classes)
    pictures, targets = load_pictures(images, names, classes, classifier)
    steps = epochs * -(-len(names) // batch_size)
    optimizer = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    module.train()
    for step in track(range(steps), f'train {out.stem}'):
        start = step * batch_size % len(names)
        if start < batch_size:
            order = torch.randperm(len(names))
        batch = order[start : start + batch_size]
        if len(batch) < 2:  # norms need more
            continue
        logits = module(_augment(pictures[batch]).to(device))
        loss = F.cross_entropy(logits, targets[batch].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if val is not None:
        pictures, targets = load_pictures(val, find_classes(val)[0], classes, classifier)
    accuracy = measure_accuracy(module.eval(), pictures, targets, device)
    file = BytesIO()
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    form = dict(model=model, size=size, **CENTRED, classes=classes)
    torch.save(dict(meta=dict(classifier=form), state_dict=state), file)
    write_atomically(file.getvalue(), out)
    return accuracy


def load_pictures(
    folder: Path, names: list[str], classes: list[str], classifier: Classifier
) -> tuple[Tensor, Tensor]:
    """Middle squares (n, 3, size, size) of images, as the classifier takes them, and classes."""
    pictures = []
    for name in names:
        rgb = np.ascontiguousarray(read_image(folder / name)[..., ::-1])
        x = classifier.prepare(torch.from_numpy(rgb).permute(2, 0, 1))
        top, left = ((n - classifier.size) // 2 for n in x.shape[2:])
        pictures.append(x[0, :, top : top + classifier.size, left : left + classifier.size])
    return torch.stack(pictures), torch.tensor([classes.index(n.split('/')[0]) for n in names])


def _augment(pictures: Tensor) -> Tensor:
    """Flips half of the pictures (N, 3, H, W), and shifts all of them by the same random step."""
    flip = torch.rand(len(pictures), 1, 1, 1) < 0.5
    shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
    return torch.where(flip, pictures.flip(-1), pictures).roll(shift, (2, 3))


@torch.no_grad()
def measure_accuracy(module: nn.Module, pictures: Tensor, targets: Tensor, device: str) -> float:
    """Fraction of the pictures whose class is predicted."""
    predicted = [module(batch.to(device)).argmax(1).cpu() for batch in pictures.split(64)]
    return (torch.cat(predicted) == targets).float().mean().item()
