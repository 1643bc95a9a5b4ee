"""Checks of the images and labels that a model gets, and of the logits that it gives."""

from collections.abc import Sequence

from torch import Tensor

from mmseg_ext.errors import UserError
from mmseg_ext.layers.precision import wide_dtype


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite; a finite sum, which is fast, tells so."""
    x = x.detach()
    return bool(x.sum(dtype=wide_dtype(x)).isfinite()) or bool(x.isfinite().all())


def check_images(inputs: Tensor, channels: int) -> None:
    """Refuses images that have no meaning for a model.

    Args:
        inputs: Images (N, C, H, W), normalised.
        channels: Number of channels that the model takes.

    Raises:
        UserError: There is no image, it has other channels, or a pixel is NaN or infinite.
    """
    if inputs.numel() == 0:
        raise UserError(f'a batch of shape {tuple(inputs.shape)} has no pixels: give an image')
    if inputs.ndim != 4 or inputs.shape[1] != channels:
        raise UserError(
            f'images have the shape {tuple(inputs.shape)}, the model takes (N, {channels}, H, W): '
            'load them with LoadImage, which gives 3 channels'
        )
    if not all_finite(inputs):
        raise UserError(
            'an image has pixels that are NaN or infinite: repair the image, or the mean and std '
            'of the data_preprocessor'
        )


def check_logits(logits: Tensor) -> None:
    """Refuses logits of a prediction that are NaN or infinite.

    Args:
        logits: Logits or probabilities of any shape.

    Raises:
        UserError: A value is not finite.
    """
    if not all_finite(logits):
        raise UserError(
            'the prediction is NaN or infinite: take a checkpoint with finite weights, and bf16 or '
            'float32 where float16 overflows'
        )


def check_training_batch(
    inputs: Tensor, data_samples: Sequence, channels: int, num_classes: int, ignore_index: int
) -> None:
    """Refuses images and labels that a model cannot learn from.

    Values on a GPU are not read, because a training step must not wait for it. The labels of a
    training are checked where they are loaded.

    Args:
        inputs: Images (N, C, H, W), normalised.
        data_samples: Data samples with ``gt_sem_seg``, class indices (1, H, W).
        channels: Number of channels that the model takes.
        num_classes: Number of classes of the model.
        ignore_index: Label of ignored pixels.

    Raises:
        UserError: The images are none of the model's, an image has no label, or a label is no
            class.
    """
    if inputs.is_cpu:
        check_images(inputs, channels)
    for sample in data_samples:
        if 'gt_sem_seg' not in sample:
            raise UserError(
                'a training image has no label: put LoadAnnotations into the pipeline of '
                'train_dataloader'
            )
        label = sample.gt_sem_seg.data
        if label.is_cpu:
            check_label(label, num_classes, ignore_index)


def check_label(label: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuses a label with values that are no class and are not ignored.

    Args:
        label: Class indices of any shape.
        num_classes: Number of classes K; classes are 0 to K - 1.
        ignore_index: Label of ignored pixels.

    Raises:
        UserError: A value is no class; the message has the value.
    """
    wrong = label[((label < 0) | (label >= num_classes)) & (label != ignore_index)]
    if len(wrong):
        raise UserError(
            f'a label holds the value {int(wrong[0])}, but the classes are 0 to {num_classes - 1} '
            f'({ignore_index} is ignored): map it with label_map or add a class'
        )
