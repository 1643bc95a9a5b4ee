"""EncNet's encoding and FastFCN's presence of classes, as released, for comparing and measuring."""

from collections.abc import Callable

import torch
from mmseg.models.necks import JPU
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.fastfcn import FastFCNJPU, LeanEncoding, class_presence


def assignment_released(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Features (N, D, H, W) to what belongs to each code (N, L, K), by an (N, L, K, D) tensor."""
    k, d = codewords.shape
    pixels = x.flatten(2).mT.contiguous()[:, :, None].expand(-1, -1, k, d)
    return (scale * (pixels - codewords).pow(2).sum(3)).softmax(2)


def encoding_released(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Features (N, D, H, W) to (N, K, D), with the tensor of residuals formed a second time."""
    k, d = codewords.shape
    pixels = x.flatten(2).mT.contiguous()[:, :, None].expand(-1, -1, k, d)
    weights = assignment_released(x, codewords, scale)
    return (weights[..., None] * (pixels - codewords)).sum(1)


def presence_released(label: Tensor, num_classes: int) -> Tensor:
    """Which classes labels (N, H, W) hold, by a histogram of each image on the CPU."""
    presence = torch.zeros(len(label), num_classes)
    for i, one in enumerate(label):
        counts = torch.histc(one.cpu().float(), bins=num_classes, min=0, max=num_classes - 1)
        presence[i] = counts > 0
    return presence.to(label.device)


def _make_encoding(device: torch.device) -> tuple[Run, Run]:
    encoding = LeanEncoding(512, 32).to(device)
    # Larger features saturate the assignment, and the scales' gradient is rounding alone.
    x = (0.05 * torch.randn(1, 512, 60, 60, device=device)).requires_grad_()
    weights = (encoding.codewords, encoding.scale)

    def run(form: Callable[[], Tensor]) -> Run:
        def both_ways() -> list[Tensor]:
            codes = form()
            return [codes.detach(), *torch.autograd.grad(codes.square().sum(), (x, *weights))]

        return both_ways

    return run(lambda: encoding(x)), run(lambda: encoding_released(x, *weights))


def _make_presence(device: torch.device) -> tuple[Run, Run]:
    label = torch.randint(0, 150, (16, 15, 15), device=device)
    label[label % 3 == 0] = 255
    label = label.repeat_interleave(32, 1).repeat_interleave(32, 2)
    return (
        lambda: [class_presence(label, 150)],
        lambda: [presence_released(label, 150)],
    )


def _make_neck(device: torch.device) -> tuple[Run, Run]:
    """The neck of ResNet-50 in training, and the host's class, which is the released function."""
    neck = FastFCNJPU((512, 1024, 2048), 512).train().to(device)
    released = JPU((512, 1024, 2048), 512, align_corners=True).train().to(device)
    released.load_state_dict(neck.state_dict())
    widths = zip((512, 1024, 2048), (32, 16, 8), strict=True)
    levels = [torch.randn(2, c, s, s, device=device).relu().requires_grad_() for c, s in widths]

    def step(neck: nn.Module) -> Run:
        def both_ways() -> list[Tensor]:
            out = neck(levels)[-1]
            return [out.detach(), *torch.autograd.grad(out.square().mean(), levels)]

        return both_ways

    return step(neck), step(released)


BENCHMARKS = [
    OpBenchmark('jpu', 'levels of 2 images of 256x256, ResNet-50', _make_neck),
    OpBenchmark('encoding', '3600 pixels of 512 channels, 32 codes', _make_encoding),
    OpBenchmark('class_presence', '16x480x480, 150 classes', _make_presence),
]
