"""PSSL's parts as loops and formulas, and the released forms for measuring."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_ext.baselines import EfficientNetLiteClassifier
from mmseg_ext.benchmark.op_benchmark import OpBenchmark
from mmseg_ext.losses import WeightedCELoss
from mmseg_ext.papers.pssl import deciles, smoothgrad, top_decile

EPS = 1e-8
CROPS = 4  # the plain form of the 12 crops of the recipe needs 13 GB


def smoothgrad_released(
    model: nn.Module, images: Tensor, target: Tensor, noise: Tensor, noise_amount: float = 0.1
) -> Tensor:
    """One draw at a time, through NumPy, with gradients of the parameters."""
    images_np = images.numpy()
    span = images_np.max((1, 2, 3), keepdims=True) - images_np.min((1, 2, 3), keepdims=True)
    total = 0
    for draw in noise.numpy():
        noisy = torch.from_numpy(images_np + noise_amount * span * draw).requires_grad_()
        probs = model(noisy).softmax(1)
        probs[torch.arange(len(target)), target].sum().backward()
        total = total + noisy.grad.numpy()
        model.zero_grad()
    return torch.from_numpy(total / len(noise))


def smoothgrad_loop(
    model: nn.Module, images: Tensor, target: Tensor, noise: Tensor, noise_amount: float = 0.1
) -> Tensor:
    """One image and one draw at a time, with gradients of the input alone."""
    means = []
    for i in range(len(images)):
        total = torch.zeros_like(images[i])
        for draw in noise[:, i]:
            spread = noise_amount * (images[i].max() - images[i].min())
            noisy = (images[i] + spread * draw).requires_grad_()
            prob = model(noisy[None]).softmax(1)[0, target[i]]
            total += torch.autograd.grad(prob, noisy)[0]
        means.append(total / len(noise))
    return torch.stack(means)


def deciles_of_sorted(importance: Tensor) -> Tensor:
    """Deciles (H, W) by Python's stable sort of the pixels."""
    values = importance.flatten().tolist()
    order = sorted(range(len(values)), key=values.__getitem__)
    result = torch.zeros(len(values), dtype=torch.uint8)
    for rank, pixel in enumerate(order):
        result[pixel] = 10 * rank // len(values)
    return result.view(importance.shape)


def weighted_ce_released(
    logits: Tensor, label: Tensor, ignore_index: int, background_weight: float, eps: float = EPS
) -> Tensor:
    """Quotient of two means over all pixels; logits at the size of the label."""
    weights = torch.ones(logits.shape[1], dtype=logits.dtype)
    weights[-1] = background_weight
    valid = label != ignore_index
    target = torch.where(valid, label, 0)
    nll = -logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    factors = torch.where(valid, weights[target], 0)
    return (nll * factors).mean() / (factors.mean() + eps)


def _make_smoothgrad(device: torch.device) -> tuple:
    torch.manual_seed(0)
    model = EfficientNetLiteClassifier().to(device).eval()
    images = torch.randn(1, 3, 224, 224, device=device)
    noise = torch.randn(16, *images.shape, device=device)
    target = torch.tensor([3], device=device)
    return (
        lambda: [smoothgrad(model, images, target, n_samples=16, noise=noise)],
        lambda: [smoothgrad_released(model, images, target, noise)],
    )


def _make_top_decile(device: torch.device) -> tuple:
    importance = torch.rand(8, 375, 500, device=device)
    return (
        lambda: [top_decile(importance).float()],
        lambda: [(deciles(importance) == 9).float()],
    )


def _make_loss(device: torch.device) -> tuple:
    torch.manual_seed(0)
    coarse = torch.randn(CROPS, 1001, 32, 32, device=device)
    label = torch.full((CROPS, 256, 256), 1000, device=device)
    label[:, 80:160, 80:180] = torch.arange(CROPS, device=device)[:, None, None]
    label[:, 250:] = 1001
    loss = WeightedCELoss(background_weight=0.1, eps=EPS, in_strips=True)

    def run(strips: bool) -> list[Tensor]:
        logits = coarse.clone().requires_grad_()
        if strips:
            value = loss(logits, label, ignore_index=1001, align_corners=False)
        else:
            full = F.interpolate(logits, size=(256, 256), mode='bilinear', align_corners=False)
            weight = torch.ones(1001, device=device)
            weight[-1] = 0.1
            value = F.cross_entropy(full, label, weight, ignore_index=1001)
        value.backward()
        return [value.detach(), logits.grad]

    return (lambda: run(True)), (lambda: run(False))


BENCHMARKS = [
    OpBenchmark('pssl_smoothgrad', '1x3x224x224, 16 draws, EfficientNet-Lite0', _make_smoothgrad),
    OpBenchmark('pssl_top_decile', '8x375x500', _make_top_decile),
    OpBenchmark('pssl_loss', f'{CROPS}x1001x32x32 for labels {CROPS}x256x256', _make_loss),
]
