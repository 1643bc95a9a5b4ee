"""Segmentors made faster for prediction."""

from typing import Any

import torch

from ..layers.folding import fold_batch_norm


def make_fast(model: Any, *, compiled: bool = False) -> None:
    """Makes the predictions of a segmentor faster, in place; it cannot train afterwards.

    The first prediction folds batch norms into convolutions. On a CPU, tensors of images are in
    memory with the channels last; this is not done on a GPU, where it was not measured.

    Args:
        model: Segmentor in eval mode, on its device, with its trained weights.
        compiled: Whether ``torch.compile`` compiles the network after the first prediction.
    """
    if next(model.parameters()).device.type == 'cpu':
        model.to(memory_format=torch.channels_last)

    def predict(*args: Any, **kwargs: Any) -> Any:
        del model.predict  # the method of its class again
        result = fold_batch_norm(model, lambda: model.predict(*args, **kwargs))
        if compiled:
            model.extract_feat = torch.compile(model.extract_feat)
            model.encode_decode = torch.compile(model.encode_decode)
        return result

    model.predict = predict
