"""A pre-trained network without its classifier, to start a training on other classes."""

from collections.abc import Mapping

from torch import Tensor

from mmseg_ext.errors import UserError

CLASSIFIERS = ('conv_seg', 'aux_seg')  # also that of the soft regions of OCRNetHead


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of backbone, neck and heads, without the layers that have an output for each class.

    Raises:
        UserError: There is no such layer, or nothing else.
    """
    weights = {
        name: tensor
        for name, tensor in state_dict.items()
        if not set(name.split('.')).intersection(CLASSIFIERS)
    }
    if not weights or len(weights) == len(state_dict):
        raise UserError(
            'the weights have no classifier (conv_seg) to remove, or nothing else: give a '
            'checkpoint of a segmentation network'
        )
    return weights
