"""What the losses of logits and labels share: the arguments that heads hand to them."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..layers.precision import at_least_float32


def valid_pixels(logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Pixels that have a class, (N, H, W) bool: the label is in [0, K) and not ``ignore_index``.

    Args:
        logits: (N, K, H, W).
        label: (N, H, W), any integers.
        ignore_index: A label in [0, K) to ignore as well.

    Raises:
        ValueError: the two differ in size.
    """
    expected = (logits.shape[0], *logits.shape[2:])
    if logits.ndim != 4 or label.shape != expected:
        raise UserError(
            f'Logits {tuple(logits.shape)} and label {tuple(label.shape)} do not belong together: '
            'resize the logits to the label, (N, K, H, W) for (N, H, W)'
        )
    return (label >= 0) & (label < logits.shape[1]) & (label != ignore_index)


class PixelLoss(nn.Module, ABC):
    """A loss for any head's ``loss_decode``, in float32 or better, of the pixels with a class.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key in the log; has to contain "loss" to be trained.
    """

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
        """The loss of a batch, finite and connected to the logits if all is ignored too.

        Args:
            cls_score: Logits (N, K, H, W), any float type.
            label: (N, H, W), integers; outside [0, K) and ``ignore_index`` is ignored.
            weight: (N, H, W), factors of the pixels' losses, as of a head's ``sampler``.
            avg_factor: None.
            reduction_override: None or 'mean'.
            ignore_index: A label in [0, K) to ignore as well.
            **kwargs: What heads hand to other losses.

        Returns:
            A scalar, float32 or better.

        Raises:
            ValueError: logits and label differ in size, another divisor is asked for, or pixels are
                weighted where the loss has no terms of single pixels.
        """
        if avg_factor is not None or reduction_override not in (None, 'mean'):
            raise UserError(
                f'{type(self).__name__} got avg_factor={avg_factor}, '
                f'reduction_override={reduction_override!r}, but has a fixed divisor: leave both '
                'out'
            )
        valid = valid_pixels(cls_score, label, ignore_index)
        logits = at_least_float32(cls_score)
        return self.loss_weight * self.value(logits, label, valid, weight, **kwargs)

    @abstractmethod
    def value(
        self, logits: Tensor, label: Tensor, valid: Tensor, weight: Tensor | None, **kwargs: Any
    ) -> Tensor:
        """The loss before ``loss_weight``.

        Args:
            logits: (N, K, H, W), float32 or better.
            label: (N, H, W), integers.
            valid: (N, H, W), bool: the pixels that count.
            weight: (N, H, W) or None.
            **kwargs: As given to ``forward``.
        """
