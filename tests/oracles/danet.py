"""DANet's attentions: slow, obvious formulas, and the host's forms for measuring.

The released attentions and the host's are the same operations.
"""

import torch
from mmseg.models.decode_heads.da_head import CAM, PAM, DAHead
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.danet import ChannelAttention, DANetHead, PositionAttention


def attend_slow(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Pixel by pixel: (N, D, L), (N, D, L) and (N, C, L) to (N, C, L)."""
    images = []
    for q, k, v in zip(query, key, value, strict=True):
        columns = []
        for i in range(q.shape[1]):
            weights = torch.exp((q[:, i, None] * k).sum(0))
            columns.append((v * weights).sum(1) / weights.sum())
        images.append(torch.stack(columns, dim=1))
    return torch.stack(images)


def channel_weights_slow(x: Tensor, sign: int = -1) -> Tensor:
    """Channel by channel: (N, C, H, W) to (N, C, C)."""
    rows = []
    for image in x.flatten(2):
        for channel in image:
            weights = torch.exp(sign * (channel * image).sum(1))
            rows.append(weights / weights.sum())
    return torch.stack(rows).unflatten(0, (len(x), -1))


def _both_ways(ours: nn.Module, released: nn.Module, x: Tensor) -> tuple[Run, Run]:
    """Forward and backward of two modules of equal weights, their gates half open."""
    for name, parameter in ours.named_parameters():
        if name.endswith('gamma.scale'):
            nn.init.constant_(parameter, 0.5)
    released.load_state_dict(ours.state_dict())

    def run(module: nn.Module) -> Run:
        module.to(x.device)
        # The key's bias moves all energies of a pixel alike: its gradient is 0 but for rounding.
        named = module.named_parameters()
        parameters = [p for name, p in named if not name.endswith('key_project.bias')]

        def step() -> list[Tensor]:
            out = module([x]) if isinstance(module, DAHead) else module(x)
            out = [out] if isinstance(out, Tensor) else out
            loss = sum(y.square().mean() for y in out)
            return [*(y.detach() for y in out), *torch.autograd.grad(loss, [x, *parameters])]

        return step

    return run(ours), run(released)


def _make_head(device: torch.device) -> tuple[Run, Run]:
    shared = dict(in_channels=2048, channels=512, num_classes=19, norm_cfg=dict(type='BN'))
    loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    # A ReLU turns rounding near 0 into other gradients.
    shared |= dict(pam_channels=64, dropout_ratio=0.0, act_cfg=None, loss_decode=loss)
    x = torch.randn(2, 2048, 96, 96, device=device, requires_grad=True)
    ours = DANetHead(**shared)
    # Channels of unit size have energies of thousands, whose rounding would be all the difference.
    nn.init.constant_(ours.cam_in_conv.bn.weight, 0.03)
    return _both_ways(ours, DAHead(**shared), x)


def _make_pam(device: torch.device) -> tuple[Run, Run]:
    x = torch.randn(1, 512, 96, 96, device=device, requires_grad=True)
    return _both_ways(PositionAttention(512, 64), PAM(512, 64), x)


def _make_cam(device: torch.device) -> tuple[Run, Run]:
    # Of small numbers, whose energies are small: else their rounding would be all the difference.
    x = (0.03 * torch.randn(2, 512, 96, 96, device=device)).requires_grad_()
    return _both_ways(ChannelAttention(), CAM(), x)


def _make_small_head(device: torch.device) -> tuple[Run, Run]:
    shared = dict(in_channels=270, channels=68, num_classes=11, norm_cfg=dict(type='BN'))
    loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    shared |= dict(pam_channels=8, dropout_ratio=0.0, act_cfg=None, loss_decode=loss)
    x = torch.randn(8, 270, 45, 60, device=device, requires_grad=True)
    ours = DANetHead(**shared)
    nn.init.constant_(ours.cam_in_conv.bn.weight, 0.03)
    return _both_ways(ours, DAHead(**shared), x)


BENCHMARKS = [
    OpBenchmark('danet_head', '2x2048x96x96', _make_head),
    OpBenchmark('danet_head_narrow', '8x270x45x60', _make_small_head),
    OpBenchmark('danet_channel_attention', '2x512x96x96', _make_cam),
    OpBenchmark('danet_position_attention', '1x512x96x96', _make_pam),
]
