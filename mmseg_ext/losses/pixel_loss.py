"""Base of the losses of logits and labels: it handles the arguments that heads pass to losses."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..layers.precision import at_least_float32


def valid_pixels(
    logits: Tensor, label: Tensor, ignore_index: int, *, any_size: bool = False
) -> Tensor:
    """Mask (N, H, W), bool, of pixels with a class: labels in [0, K) except ``ignore_index``.

    Args:
        logits: Logits, (N, K, H, W).
        label: Labels, (N, H, W), any integers.
        ignore_index: Label to ignore; labels outside [0, K) are always ignored.
        any_size: Whether height and width of the logits may differ from those of the label.

    Raises:
        UserError: Logits and label differ in size.
    """
    size = label.shape[1:] if any_size else logits.shape[2:]
    expected = (logits.shape[0], *size)
    if logits.ndim != 4 or label.shape != expected:
        raise UserError(
            f'logits {tuple(logits.shape)} and label {tuple(label.shape)} differ in size: '
            'resize the logits to the label, (N, K, H, W) for (N, H, W)'
        )
    return (label >= 0) & (label < logits.shape[1]) & (label != ignore_index)


class PixelLoss(nn.Module, ABC):
    """Base of losses for ``loss_decode`` of any head, over the pixels with a class.

    Losses are computed in float32 or better.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key in the log; it has to contain "loss", or the loss is not trained.
    """

    # Whether the loss takes logits of any size and resizes them itself. It gets them from every
    # decode head as they are, and the head's ``align_corners`` with them.
    resizes_logits = False

    def __init__(self, loss_weight: float, loss_name: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """The loss of a batch; with ignored pixels only it is finite and has a gradient too.

        Args:
            cls_score: Logits, (N, K, H, W), any float type; of any size if ``resizes_logits``.
            label: Labels, (N, H, W), integers; ``ignore_index`` and values outside [0, K) are
                ignored.
            weight: Factors of the pixels' losses, (N, H, W), for example from a head's ``sampler``.
            avg_factor: Not supported; only None.
            reduction_override: Not supported; only None or 'mean'.
            ignore_index: Label to ignore.
            **kwargs: Arguments that heads pass to other losses; not used.

        Returns:
            A scalar, float32 or better.

        Raises:
            UserError: Logits and label differ in size, ``avg_factor`` or ``reduction_override`` is
                set, or ``weight`` is given and the loss has no terms of single pixels.
        """
        if avg_factor is not None or reduction_override not in (None, 'mean'):
            raise UserError(
                f'{type(self).__name__} got avg_factor={avg_factor}, '
                f'reduction_override={reduction_override!r}, but has a fixed divisor: remove both'
            )
        any_size = self.resizes_logits
        valid = valid_pixels(cls_score, label, ignore_index, any_size=any_size)
        logits = at_least_float32(cls_score)
        return self.loss_weight * self.value(logits, label, valid, weight, **kwargs)

    @abstractmethod
    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        """The loss before ``loss_weight``.

        Args:
            logits: Logits, (N, K, H, W), float32 or better.
            label: Labels, (N, H, W), integers.
            valid: Mask of the pixels that count, (N, H, W), bool.
            weight: Factors of the pixels' losses, (N, H, W), or None.
            **kwargs: Further arguments of ``forward``.
        """
