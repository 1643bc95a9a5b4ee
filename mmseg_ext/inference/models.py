"""Models from Python: ``mmseg_ext.list_models``, ``mmseg_ext.load`` and ``mmseg_ext.predict``."""

from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from mmseg.models import BaseSegmentor
from torch import Tensor

from mmseg_ext.config import prepare
from mmseg_ext.config.checks import check_device
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predictor import (
    classes_and_palette,
    dataset_meta,
    image_pipelines,
    load_model,
)
from mmseg_ext.segmentors.fast import make_fast

PACKAGE = Path(__file__).parents[1]


def config_folder() -> Path:
    """Folder of the configs: inside an installed package, beside the package in a checkout."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def list_models(pattern: str = '*') -> list[str]:
    """Sorted names of the models of this package that match a pattern such as ``*camvid*``."""
    paths = config_folder().glob('[!_]*/*.py')
    names = sorted(f'{path.parent.name}/{path.stem}' for path in paths)
    return [name for name in names if fnmatchcase(name, pattern)]


def load(
    name: str | Path,
    checkpoint: str | Path | None = None,
    device: str = 'cpu',
    *,
    fast: bool = True,
) -> BaseSegmentor:
    """A model in evaluation mode; its config is ``cfg``, its classes are in ``dataset_meta``.

    Args:
        name: Name from ``list_models``, or path of a config file.
        checkpoint: Path of its weights; None leaves random weights.
        device: Device: ``cpu``, ``cuda``, ``cuda:1``, ...
        fast: Whether the first prediction makes the next ones faster: it folds batch norms into
            convolutions. Such a model cannot train.

    Raises:
        UserError: The model or the checkpoint does not exist, the checkpoint is another model's, or
            PyTorch does not see the device.
    """
    check_device(device)
    config = prepare.load_config(str(_config_file(name)))
    model, meta = load_model(config, checkpoint)
    classes, palette = classes_and_palette(config, meta)
    described = dataset_meta(config, meta)
    model.cfg, model.dataset_meta = config, {**described, 'classes': classes, 'palette': palette}
    model.to(device)
    if fast:
        make_fast(model)
    return model


def _config_file(name: str | Path) -> Path:
    if Path(name).is_file():
        return Path(name)
    names = list_models()
    if str(name) not in names:
        matches = get_close_matches(str(name), names)
        advice = (
            f'did you mean {" or ".join(matches)}?' if matches else 'list_models() names all models'
        )
        raise UserError(f'there is no model or config file {name}: {advice}')
    return config_folder() / f'{name}.py'


@torch.no_grad()
def predict(model: BaseSegmentor, image: str | Path | np.ndarray) -> tuple[Tensor, Tensor]:
    """Classes and probabilities of an image, at its size and on the device of the model.

    Args:
        model: Model from ``load``, or from the host's ``init_model``.
        image: Path, or uint8 array (H, W, 3) in BGR, as OpenCV reads it.

    Returns:
        Class indices (H, W), int64, and probabilities (K, H, W), float32.

    Raises:
        UserError: The image cannot be read, the array has another shape or type, or the model is in
            training mode, has no config or predicts no probabilities.
    """
    if model.training:
        raise UserError('the model is in training mode: call model.eval() first')
    if getattr(model, 'cfg', None) is None:
        raise UserError('the model has no config: load it by mmseg_ext.load')
    from_file, from_array = image_pipelines(model.cfg)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(
                f'the image is an array of {image.dtype} with the shape {image.shape}: give uint8 '
                'of the shape (height, width, 3), in BGR'
            )
        packed = from_array(dict(img=image, seg_fields=[]))
    else:
        if not isinstance(image, str | Path):
            raise UserError(
                f'the image is a {type(image).__name__}: give a path, or a uint8 array of the '
                'shape (height, width, 3), in BGR'
            )
        if not Path(image).is_file():
            raise UserError(f'the image {image} does not exist or is no file')
        packed = from_file(dict(img_path=str(image), seg_fields=[]))
    data = model.data_preprocessor({key: [value] for key, value in packed.items()}, False)
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    (sample,) = model.predict(data['inputs'].to(dtype), data['data_samples'])
    if 'seg_logits' not in sample:
        raise UserError(
            'the image is so large that it is predicted in tiles, without probabilities: raise '
            'test_cfg.memory_limit'
        )
    scores = sample.seg_logits.data.float()
    if len(scores) > 1:
        probabilities = scores.softmax(0)
    else:  # the probability of class 1, or of the only class
        probabilities = scores if model.num_classes == 1 else torch.cat([1 - scores, scores])
    return sample.pred_sem_seg.data[0].long(), probabilities
