"""Explanations of classifiers: SmoothGrad, and the consensus of several classifiers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ...layers.precision import at_least_float32

ON_CPU, ON_OTHER_DEVICES = 4, 64  # noisy images that run together

# Scores of classes, (N, K), from logits (N, K).
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    'prob': lambda logits: logits.softmax(1),
    'logit': lambda logits: logits,
    'loss': lambda logits: -logits.log_softmax(1),
}
# Sizes of maps, (..., 1, 1), from absolute values (..., H, W).
SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    'none': lambda maps: torch.ones_like(maps[..., :1, :1]),
    'l1': lambda maps: maps.sum((-2, -1), keepdim=True),
    'l2': lambda maps: torch.linalg.vector_norm(maps, dim=(-2, -1), keepdim=True),
    'max': lambda maps: maps.amax((-2, -1), keepdim=True),
}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context in which a model is in evaluation mode and its parameters need no gradients."""
    modes = {module: module.training for module in model.modules()}
    needs = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, need in needs.items():
            parameter.requires_grad_(need)


def smoothgrad(
    model: nn.Module,
    images: Tensor,
    target: Tensor | None = None,
    *,
    n_samples: int = 50,
    noise_amount: float = 0.1,
    of: str = 'prob',
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Mean gradient of a class's score over noisy copies of each image (arXiv 1706.03825).

    The noise of an image has the standard deviation ``noise_amount`` (max - min), over all its
    values. One backward pass of the summed scores serves several images and draws: in evaluation
    mode they do not depend on each other. The parameters take no gradients.

    Args:
        model: Classifier, from images to logits (N, K).
        images: Images as the classifier takes them, (N, 3, H, W).
        target: Class of each image, (N,), int64; None takes the class that the classifier predicts
            for the image without noise.
        n_samples: Number of draws (50 as released).
        noise_amount: Standard deviation of the noise as a fraction of the image's range of values.
        of: Score: 'prob' (softmax, as released), 'logit', or 'loss' (cross entropy).
        noise: Draws of the unit normal distribution, (n_samples, N, 3, H, W); None draws them.
        generator: Source of the draws, on the CPU; the same state gives the same draws on every
            device and for every ``chunk``.
        chunk: Number of noisy images that run together; by default 4 on a CPU, where more are not
            faster, and 64 on other devices.

    Returns:
        Gradients, (N, 3, H, W).

    Raises:
        UserError: ``of`` has another value, ``n_samples`` is below 1, or ``noise`` is of another
            shape.
    """
    if of not in SCORES:
        raise UserError(f'of={of!r} must be one of {", ".join(SCORES)}')
    if n_samples < 1:
        raise UserError(f'n_samples={n_samples} must be at least 1')
    if noise is not None and noise.shape != (n_samples, *images.shape):
        raise UserError(
            f'noise has the shape {tuple(noise.shape)}, but {n_samples} draws for images of '
            f'{tuple(images.shape)} are needed: give {(n_samples, *images.shape)}'
        )
    with frozen(model):
        if target is None:
            target = predicted_classes(model, images)
        spread = noise_amount * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
        total = torch.zeros_like(images)
        chunk = chunk or (ON_CPU if images.device.type == 'cpu' else ON_OTHER_DEVICES)
        step = max(chunk // len(images), 1)
        for start in range(0, n_samples, step):
            count = min(step, n_samples - start)
            if noise is not None:
                draws = noise[start : start + count]
            else:  # one call a draw, so that the draws do not depend on ``chunk``
                draws = torch.stack([_draw(images, generator) for _ in range(count)])
            noisy = images + spread.view(-1, 1, 1, 1) * draws  # (n, N, 3, H, W)
            gradients = _gradients(model, noisy.flatten(0, 1), target.repeat(count), SCORES[of])
            total += gradients.view_as(noisy).sum(0)
    return total / n_samples


@torch.no_grad()
def predicted_classes(model: nn.Module, images: Tensor) -> Tensor:
    """Class of the largest logit of each image, (N,), int64."""
    logits: Tensor = model(images)
    return logits.argmax(1)


def _draw(images: Tensor, generator: torch.Generator | None) -> Tensor:
    draw = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return draw.to(images.device)


def _gradients(
    model: nn.Module, images: Tensor, target: Tensor, score_of: Callable[[Tensor], Tensor]
) -> Tensor:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        scores = score_of(at_least_float32(model(images))).gather(1, target[:, None])
        (gradients,) = torch.autograd.grad(scores.sum(), images)
    return gradients


def explanation_map(gradients: Tensor) -> Tensor:
    """Importance of each pixel, (N, H, W): the sum of absolute gradients (N, C, H, W) over C."""
    return gradients.abs().sum(1)


def consensus(maps: Tensor, normalize: str = 'l2') -> Tensor:
    """Mean of the classifiers' maps of each image (arXiv 2109.00707).

    Args:
        maps: Maps of M classifiers, (M, N, H, W), not negative.
        normalize: Size that each map is divided by, so that no classifier dominates: 'l2', 'l1',
            'max', or 'none' as in the released interpreter. A map of zeros stays.

    Returns:
        Maps (N, H, W).

    Raises:
        UserError: ``normalize`` has another value.
    """
    if normalize not in SIZES:
        raise UserError(f'normalize={normalize!r} must be one of {", ".join(SIZES)}')
    sizes = SIZES[normalize](maps)
    return (maps / torch.where(sizes > 0, sizes, 1)).mean(0)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) at another size (H, W), bilinear."""
    return F.interpolate(maps[:, None], size=size, mode='bilinear', align_corners=False)[:, 0]
