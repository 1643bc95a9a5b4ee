"""InfoNCE between pixels, within a batch or against the memory bank."""

from math import ceil

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError
from ...layers.precision import at_least_float32
from .memory import BELOW_ALL, MemoryBank
from .sampling import Anchors, sample_anchors

SIMILARITIES_AT_A_TIME = 2**25  # 128 MiB of float32


def positive_terms(positives: Tensor, is_positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean over each anchor's positives of -log(e^s / (e^s + sum of e^n over its negatives)).

    Args:
        positives: S, (S, P).
        is_positive: (S, P), bool; which of them count.
        negatives: Log of the sum, (S,).
    """
    terms = -F.logsigmoid(positives - negatives[:, None])
    return terms.masked_fill(~is_positive, 0).sum(1) / is_positive.sum(1).clamp(min=1)


@MODELS.register_module()
class PixelContrastLoss(nn.Module):
    """Pulls vectors of one class together and pushes classes apart (Eq. 3 of the paper).

    Without a memory bank anchors are compared with each other, with one they are compared with all
    of it and nothing else.

    Args:
        temperature: Tau; cosines are divided by it (0.1 as released without memory, 0.07 with it).
        base_temperature: Multiplies the loss by ``temperature / base_temperature`` as released, a
            plain factor beside ``loss_weight``.
        max_samples: Anchors in a batch of one process, at most.
        max_views: Anchors of a class in an image, at most; it needs more pixels than that to count.
        semi_hard: Draws from this fraction of the bank only, from its nearest negatives and
            farthest positives (0.1 in the paper); None takes the whole bank, as released.
        num_positives: Draws of an anchor, with ``semi_hard``.
        num_negatives: Likewise.
        loss_weight: Factor of the loss (0.1 as released without memory, 1 with it).
        warmup_iters: Iterations without this loss, at the start of a training.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        ValueError: A number outside of its range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        max_samples: int = 1024,
        max_views: int = 100,
        semi_hard: float | None = None,
        num_positives: int = 1024,
        num_negatives: int = 2048,
        loss_weight: float = 0.1,
        warmup_iters: int = 5000,
        loss_name: str = 'loss_contrast',
    ) -> None:
        super().__init__()
        positive = dict(
            temperature=temperature,
            base_temperature=base_temperature,
            max_samples=max_samples,
            max_views=max_views,
            num_positives=num_positives,
            num_negatives=num_negatives,
        )
        for name, value in positive.items():
            if value <= 0:
                raise UserError(f'PixelContrastLoss got {name}={value}: it must be above 0')
        if semi_hard is not None and not 0 < semi_hard <= 1:
            raise UserError(
                f'PixelContrastLoss got semi_hard={semi_hard}: give a fraction in (0, 1]'
            )
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.max_samples = max_samples
        self.max_views = max_views
        self.semi_hard = semi_hard
        self.num_positives = num_positives
        self.num_negatives = num_negatives
        self.loss_weight = loss_weight
        self.warmup_iters = warmup_iters
        self.loss_name = loss_name

    def sample(self, label: Tensor, prediction: Tensor, num_classes: int) -> Anchors:
        """Anchors of labels and predictions (N, h, w); see ``sample_anchors``."""
        return sample_anchors(label, prediction, num_classes, self.max_samples, self.max_views)

    def forward(
        self, anchors: Tensor, classes: Tensor, valid: Tensor, bank: MemoryBank | None = None
    ) -> Tensor:
        """Mean over the anchors that have a positive.

        Args:
            anchors: (S, D), of unit length, any float type.
            classes: (S,), in [0, K).
            valid: (S,), bool; other rows do not count.
            bank: What they are compared with; None for each other.

        Returns:
            A scalar, float32 or better; 0, with a gradient of 0, without an anchor or a positive.
        """
        with torch.autocast(anchors.device.type, enabled=False):
            x = at_least_float32(anchors)
            if bank is None:
                terms, counted = self._each_other(x, classes, valid)
            else:
                counted = bank.filled.any(1)[classes]
                terms = self._bank_terms(x, classes, bank)
            counted = counted & valid
            mean = terms.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)
        return self.loss_weight * self.temperature / self.base_temperature * mean

    def _each_other(self, x: Tensor, classes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Terms (S,) and which of them have a positive."""
        similarity = x @ x.mT / self.temperature
        same = classes[:, None] == classes
        negatives = similarity.masked_fill(same | ~valid, BELOW_ALL).logsumexp(1)
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        is_positive = same & valid & ~itself
        return positive_terms(similarity, is_positive, negatives), is_positive.any(1)

    def _bank_terms(self, x: Tensor, classes: Tensor, bank: MemoryBank) -> Tensor:
        """Terms (S,), a few anchors at a time.

        The bank is constant, so a term depends on its own anchor alone: its gradient is made beside
        its value, and similarities are neither kept nor made again.
        """
        chances: list[Tensor] = []
        if self.semi_hard is not None:
            draws = (self.num_positives, self.num_negatives)
            chances = [torch.rand(len(x), number, device=x.device) for number in draws]
        rows_of = self._every_row if self.semi_hard is None else self._semi_hard_rows
        step = max(1, SIMILARITIES_AT_A_TIME // len(bank.rows))
        with torch.no_grad():
            parts = zip(*(rows.split(step) for rows in (x, classes, *chances)), strict=True)
            results = [rows_of(bank, *part) for part in parts]
        terms, grads = (torch.cat(tensors) for tensors in zip(*results, strict=True))
        return terms + (grads * (x - x.detach())).sum(1)  # the value plus 0, with the gradient

    def _every_row(self, bank: MemoryBank, x: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Terms (S,) of rows (S, D) of classes (S,) against the whole bank, and their gradient."""
        similarity, filled = bank.similarities(x / self.temperature), bank.filled[own]
        mine = (torch.arange(len(x), device=x.device), own)
        positives = similarity[mine]  # (S, Q*M)
        largest = similarity.amax(2, keepdim=True)
        powers = similarity.sub_(largest).exp_()  # in place: it is large
        sums = powers.sum(2)
        others = (sums.log() + largest[..., 0]).scatter(1, own[:, None], BELOW_ALL)  # (S, K)
        negatives = others.logsumexp(1)
        pull = torch.sigmoid(negatives[:, None] - positives).masked_fill(~filled, 0)
        pull /= filled.sum(1, keepdim=True).clamp(min=1)
        push = pull.sum(1, keepdim=True) * others.softmax(1) / sums
        grad = powers.mul_(push[..., None])  # of the similarities to other classes
        grad[mine] = -pull
        grad = grad.flatten(1) @ bank.rows[:-1].to(x.dtype) / self.temperature
        return positive_terms(positives, filled, negatives), grad

    def _semi_hard_rows(
        self, bank: MemoryBank, x: Tensor, own: Tensor, chance_p: Tensor, chance_n: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same against draws, (S, P) and (S, N) numbers in [0, 1), of the hardest ones."""
        assert self.semi_hard is not None
        filled, of_own = bank.filled, bank.filled.sum(1)[own]
        mine = own[:, None] == torch.arange(bank.num_classes, device=own.device)  # (S, K)
        places_p = (chance_p * (self.semi_hard * of_own).ceil()[:, None]).long()
        places_n = (chance_n * (self.semi_hard * (filled.sum() - of_own)).ceil()[:, None]).long()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            similarity = bank.similarities(x / self.temperature)
            positives = similarity[torch.arange(len(x), device=x.device), own]
            positives = positives.masked_fill(~filled[own], -BELOW_ALL)
            farthest = positives.topk(ceil(self.semi_hard * filled.shape[1]), largest=False).values
            others = similarity.masked_fill(mine[..., None], BELOW_ALL).flatten(1)
            nearest = others.topk(ceil(self.semi_hard * filled.numel())).values
            positives, others = farthest.gather(1, places_p), nearest.gather(1, places_n)
            is_positive = (of_own > 0)[:, None].expand_as(positives)
            terms = positive_terms(positives, is_positive, others.logsumexp(1))
            grad = torch.autograd.grad(terms.sum(), x)[0]
        return terms.detach(), grad
