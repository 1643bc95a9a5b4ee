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
# On a CPU: more anchors leave its cache, fewer read the whole bank too often.
ANCHORS_AT_A_TIME = 192


def positive_terms(positives: Tensor, is_positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean over the positives s of each anchor of -log(e^s / (e^s + sum of e^n)), (S,).

    Args:
        positives: Similarities s to positives, (S, P).
        is_positive: Whether an entry of ``positives`` counts, (S, P), bool.
        negatives: Logarithm of the sum of e^n over the negatives n of each anchor, (S,).
    """
    terms = -F.logsigmoid(positives - negatives[:, None])
    return terms.masked_fill(~is_positive, 0).sum(1) / is_positive.sum(1).clamp(min=1)


@MODELS.register_module()
class PixelContrastLoss(nn.Module):
    """Pulls vectors of a class together and pushes classes apart (Eq. 3 of the paper).

    Without a memory bank anchors are compared with each other. With a bank they are compared only
    with the vectors in it.

    Args:
        temperature: Divisor of cosines, tau (as released 0.1 without memory, 0.07 with memory).
        base_temperature: Divisor of a factor of the loss, ``temperature / base_temperature``, as
            released.
        max_samples: Largest number of anchors in a batch of one process.
        max_views: Largest number of anchors of a class in an image; classes with as many pixels or
            fewer have no anchors in it.
        per_image: Whether ``max_views`` counts in each image, as released, or in the whole batch of
            one process, as in the paper (50 of a class).
        semi_hard: Fraction of the bank that examples are drawn from: its nearest negatives and
            farthest positives (0.1 in the paper). None compares with the whole bank, as released.
        num_positives: Number of positives that are drawn for an anchor, with ``semi_hard``.
        num_negatives: Number of negatives that are drawn for an anchor, with ``semi_hard``.
        loss_weight: Factor of the loss (as released 0.1 without memory, 1 with memory).
        warmup_iters: Number of iterations at the start of a training in which the loss is 0.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        UserError: A number outside of its range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        max_samples: int = 1024,
        max_views: int = 100,
        per_image: bool = True,
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
        self.per_image = per_image
        self.semi_hard = semi_hard
        self.num_positives = num_positives
        self.num_negatives = num_negatives
        self.loss_weight = loss_weight
        self.warmup_iters = warmup_iters
        self.loss_name = loss_name

    def sample(self, label: Tensor, prediction: Tensor, num_classes: int) -> Anchors:
        """Anchors of labels and predictions (N, h, w); see ``sample_anchors``."""
        if not self.per_image:
            label, prediction = (x.flatten(0, 1)[None] for x in (label, prediction))
        return sample_anchors(label, prediction, num_classes, self.max_samples, self.max_views)

    def forward(
        self, anchors: Tensor, classes: Tensor, valid: Tensor, bank: MemoryBank | None = None
    ) -> Tensor:
        """Mean over the anchors that have a positive.

        Args:
            anchors: Unit vectors (S, D), any float dtype.
            classes: Class of each anchor (S,), in [0, K).
            valid: Whether a row of ``anchors`` counts, (S,), bool.
            bank: Vectors to compare with; None compares the anchors with each other.

        Returns:
            Scalar, float32 or better. Without an anchor or a positive it is 0, with a gradient of
            0.
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
        """Terms (S,), and whether each anchor has a positive, (S,)."""
        similarity = x @ x.mT / self.temperature
        same_class = classes[:, None] == classes
        negatives = similarity.masked_fill(same_class | ~valid, BELOW_ALL).logsumexp(1)
        diagonal = torch.eye(len(x), dtype=torch.bool, device=x.device)
        is_positive = same_class & valid & ~diagonal
        return positive_terms(similarity, is_positive, negatives), is_positive.any(1)

    def _bank_terms(self, x: Tensor, classes: Tensor, bank: MemoryBank) -> Tensor:
        """Terms (S,), a few anchors at a time.

        The bank is constant, so a term depends only on its own anchor. Its gradient is computed
        together with its value, and similarities are neither stored nor computed again.
        """
        chances: list[Tensor] = []
        if self.semi_hard is not None:
            draws = (self.num_positives, self.num_negatives)
            chances = [torch.rand(len(x), number, device=x.device) for number in draws]
        rows_of = self._every_row if self.semi_hard is None else self._semi_hard_rows
        step = max(1, SIMILARITIES_AT_A_TIME // len(bank.rows))
        if x.is_cpu:
            step = min(step, ANCHORS_AT_A_TIME)
        with torch.no_grad():
            chunks = zip(*(rows.split(step) for rows in (x, classes, *chances)), strict=True)
            results = [rows_of(bank, *chunk) for chunk in chunks]
        terms, grads = (torch.cat(tensors) for tensors in zip(*results, strict=True))
        return terms + (grads * (x - x.detach())).sum(1)  # the value plus 0, with the gradient

    def _every_row(self, bank: MemoryBank, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Terms (S,) of vectors x (S, D) against the whole bank, and their gradients (S, D).

        With the logarithm L of the sum of e^n over the negatives n, and P positives s, a term is
        the mean of log(1 + e^(L - s)). Its derivatives are -sigmoid(L - s) / P by a positive, and
        e^(n - L) * (sum of sigmoid(L - s)) / P by a negative.
        """
        similarity, filled = bank.similarities(x / self.temperature), bank.filled[classes]
        anchor_class = (torch.arange(len(x), device=x.device), classes)
        positives = similarity[anchor_class]  # (S, R)
        largest = similarity.amax(2, keepdim=True)
        powers = similarity.sub_(largest).exp_()  # in place: it is large
        sums = powers.sum(2)
        class_sums = sums.log() + largest[..., 0]
        class_sums = class_sums.scatter(1, classes[:, None], BELOW_ALL)  # (S, K)
        negatives = class_sums.logsumexp(1)
        pull = torch.sigmoid(negatives[:, None] - positives).masked_fill(~filled, 0)
        pull /= filled.sum(1, keepdim=True).clamp(min=1)
        push = pull.sum(1, keepdim=True) * class_sums.softmax(1) / sums
        grad = powers.mul_(push[..., None])  # by similarities to other classes
        grad[anchor_class] = -pull
        grad = grad.flatten(1) @ bank.rows[:-1].to(x.dtype) / self.temperature
        return positive_terms(positives, filled, negatives), grad

    def _semi_hard_rows(
        self, bank: MemoryBank, x: Tensor, classes: Tensor, chance_p: Tensor, chance_n: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Terms (S,) of vectors x (S, D) against drawn semi-hard examples, and their gradients.

        Args:
            bank: Memory bank.
            x: Vectors (S, D).
            classes: Class of each vector (S,).
            chance_p: Random numbers in [0, 1), each of which draws a positive, (S, positives).
            chance_n: Random numbers in [0, 1), each of which draws a negative, (S, negatives).
        """
        assert self.semi_hard is not None
        filled, count = bank.filled, bank.filled.sum(1)[classes]
        is_own_class = classes[:, None] == torch.arange(bank.num_classes, device=classes.device)
        index_p = (chance_p * (self.semi_hard * count).ceil()[:, None]).long()
        index_n = (chance_n * (self.semi_hard * (filled.sum() - count)).ceil()[:, None]).long()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            similarity = bank.similarities(x / self.temperature)
            positives = similarity[torch.arange(len(x), device=x.device), classes]
            positives = positives.masked_fill(~filled[classes], -BELOW_ALL)
            farthest = positives.topk(ceil(self.semi_hard * filled.shape[1]), largest=False).values
            negatives = similarity.masked_fill(is_own_class[..., None], BELOW_ALL).flatten(1)
            nearest = negatives.topk(ceil(self.semi_hard * filled.numel())).values
            positives, negatives = farthest.gather(1, index_p), nearest.gather(1, index_n)
            is_positive = (count > 0)[:, None].expand_as(positives)
            terms = positive_terms(positives, is_positive, negatives.logsumexp(1))
            grad = torch.autograd.grad(terms.sum(), x)[0]
        return terms.detach(), grad
