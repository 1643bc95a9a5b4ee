"""DANet: Dual Attention Network for Scene Segmentation.

Fu, Liu, Tian, Li, Bao, Fang, Lu, CVPR 2019, arXiv 1809.02983.
Code: junfu1115/DANet (MIT).

Differs from it, and from the host's ``DAHead``, whose weights load:

- no L x L matrix of the pixels exists at any time, in either direction;
- channel attention is float32 under autocast too: its energies are sums over all pixels;
- inference runs the classifier of the fused features alone;
- query and key are plain convolutions as in the code, where the paper draws BN and ReLU.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.da_head import CAM, PAM, DAHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.pytorch_init import PyTorchInit

BLOCK = 3 * 2**23  # attention weights that exist at a time: 96 MiB in float32


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """``softmax(query^T key)``: weights (N, R, L), which sum to 1 over L.

    The energies are not divided by sqrt(D). They are computed in float32 at least: bfloat16 would
    round an energy of 50 by up to an eighth.

    Args:
        query: (N, D, R).
        key: (N, D, L).
    """
    wide = _wider(query)
    with torch.autocast(query.device.type, enabled=False):
        return (query.to(wide).mT @ key.to(wide)).softmax(dim=-1)


def _wider(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _weights_by_block(query: Tensor, key: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """``attention_weights`` of one image, (R, L), for a few queries at a time, and their place.

    The weights lie in one buffer, given again and again, and beside it is a second one of their
    shape to compute with: on a CPU new memory of this size costs as much as the energies.
    """
    length = key.shape[1]
    rows = -(-length // -(-(length**2) // BLOCK))  # as many in each block
    query, key = query.to(_wider(query)).mT.contiguous(), key.to(_wider(key))
    buffers = key.new_empty(2, rows, length)
    for start in range(0, length, rows):
        part = query[start : start + rows]
        weights, spare = buffers[:, : len(part)]
        torch.mm(part, key, out=spare)
        yield slice(start, start + rows), torch.softmax(spare, -1, out=weights), spare


def _attend(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """``attend`` for one image: (D, L), (D, L) and (C, L) into ``out`` (C, L)."""
    value = value.mT.contiguous()
    for rows, weights, _ in _weights_by_block(query, key):
        out[:, rows] = (weights.to(value.dtype) @ value).mT


def _attend_backward(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from that of ``out``."""
    wide = _wider(query)
    mean = (grad.to(wide) * out).sum(0)[:, None]  # (L, 1), of the gradients of a pixel's weights
    query, key, grad = query.to(wide).mT.contiguous(), key.to(wide), grad.mT.contiguous()
    d_query, d_key = torch.empty_like(query), torch.zeros_like(query)
    d_value = torch.zeros_like(grad, dtype=wide)
    for rows, weights, d_energy in _weights_by_block(query.mT, key):
        _add_product(d_value, weights.mT, grad[rows])
        _write_product(d_energy, grad[rows], value)
        d_energy.sub_(mean[rows]).mul_(weights)
        torch.mm(d_energy, key.mT, out=d_query[rows])
        _add_product(d_key, d_energy.mT, query[rows])
    return d_query.mT, d_key.mT, d_value.mT


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds ``a @ b``, in the precision of b, to a total that may be wider."""
    if total.dtype == b.dtype:
        total.addmm_(a, b)
    else:
        total += a.to(b.dtype) @ b


def _write_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    if out.dtype == b.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


class _Attend(torch.autograd.Function):
    """``attend``, whose weights are computed again in backward."""

    @staticmethod
    def forward(ctx: Any, *images: Tensor) -> Tensor:
        out = torch.empty_like(images[-1])
        ctx.save_for_backward(*images, out)
        # Export takes this function apart, and buffers cannot be written within a graph.
        images = tuple(x.detach() for x in images)
        with torch.autocast(out.device.type, enabled=False):
            for image in zip(*images, out, strict=True):
                _attend(*image)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        images = zip(*ctx.saved_tensors, grad, strict=True)
        with torch.autocast(grad.device.type, enabled=False):
            grads = [_attend_backward(*image) for image in images]
        return tuple(
            torch.stack(parts).to(x.dtype)
            for parts, x in zip(zip(*grads, strict=True), ctx.saved_tensors, strict=False)
        )


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each pixel's mixture of all values, ``value softmax(query^T key)^T``, in little memory.

    Args:
        query: (N, D, L).
        key: (N, D, L).
        value: (N, C, L).

    Returns:
        (N, C, L), in the type of ``value``.
    """
    return _Attend.apply(query, key, value)


class PositionAttention(PAM):
    """The host's ``PAM`` in blocks of queries: every pixel attends to all pixels (Sec. 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same: ``gamma * attended + x``."""
        layers = self.query_project, self.key_project, self.value_project
        query, key, value = (layer(x).flatten(2) for layer in layers)
        return self.gamma(attend(query, key, value).unflatten(2, x.shape[2:])) + x

    def weights_of(self, x: Tensor, point: tuple[float, float]) -> Tensor:
        """What one pixel of x (N, C, H, W) attends to: (N, 1, H, W), which sums to 1.

        ``point`` is (x, y) as fractions of width and height, in [0, 1).
        """
        h, w = x.shape[2:]
        row, column = int(point[1] * h), int(point[0] * w)
        query = self.query_project(x[:, :, row : row + 1, column : column + 1]).flatten(2)
        return attention_weights(query, self.key_project(x).flatten(2)).unflatten(2, (h, w))


class ChannelAttention(CAM):
    """The host's ``CAM`` in float32: every channel attends to all channels (Sec. 3.3).

    Energies are sums over all pixels: they overflow float16, and TF32 (off unless you allow it)
    would round them by whole units.

    Args:
        sign: Of the energies. -1 as released: the least alike channels get the largest weights
            (``softmax(max(E) - E)``); +1 as printed in the paper.
    """

    def __init__(self, sign: int = -1) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same: ``gamma * attended + x``."""
        with torch.autocast(x.device.type, enabled=False):
            flat = self._flatten(x)
            attended = (self.weights(x) @ flat).unflatten(2, x.shape[2:])
            return (self.gamma(attended) + x).to(x.dtype)

    def weights(self, x: Tensor) -> Tensor:
        """Weights (N, C, C) of all channels (columns) for each (row); rows sum to 1."""
        with torch.autocast(x.device.type, enabled=False):
            flat = self._flatten(x)
            return (self.sign * (flat @ flat.mT)).softmax(dim=-1)

    @staticmethod
    def _flatten(x: Tensor) -> Tensor:
        return x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))


@MODELS.register_module()
class DANetHead(PyTorchInit, DAHead):
    """Sums the features of position attention and of channel attention, and classifies all three.

    Args:
        in_channels: Channels of the features, or of each level where ``input_transform`` joins
            several.
        channels: Width of both branches; a quarter of the input's by default (512 of 2048).
        pam_channels: Width of query and key; an eighth of ``channels`` by default.
        cam_sign: -1 as released, +1 as printed in the paper; see ``ChannelAttention``.
        align_corners: Of the resize to the labels' or the image's size.
        **kwargs: As for the host's ``DAHead``.

    Raises:
        ValueError: no channel is left for query and key, or ``cam_sign`` is another number.
    """

    host_counterpart = dict(type='DAHead', pam_channels=64)

    aux_logits = (1, 2)

    def __init__(
        self,
        *,
        in_channels: int | Sequence[int],
        channels: int | None = None,
        pam_channels: int | None = None,
        cam_sign: int = -1,
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        width = in_channels if isinstance(in_channels, int) else sum(in_channels)
        channels = width // 4 if channels is None else channels
        pam_channels = channels // 8 if pam_channels is None else pam_channels
        if pam_channels < 1:
            raise UserError(
                f'in_channels={in_channels}, channels={channels} leave pam_channels={pam_channels} '
                'for query and key: give channels and pam_channels of 1 or more'
            )
        if cam_sign not in (-1, 1):
            raise UserError(f'cam_sign={cam_sign} must be -1 (as released) or 1 (as printed)')
        cross_entropy = dict(type='CrossEntropyLoss', avg_non_ignore=True)
        kwargs = dict(init_cfg=None, norm_cfg=dict(type='BN'), loss_decode=cross_entropy) | kwargs
        super().__init__(
            pam_channels,
            in_channels=in_channels,
            channels=channels,
            align_corners=align_corners,
            **kwargs,
        )
        self.pam = PositionAttention(channels, pam_channels)
        self.cam = ChannelAttention(cam_sign)
        # The host's have num_classes outputs, also where two classes share one.
        self.pam_conv_seg = nn.Conv2d(channels, self.out_channels, 1)
        self.cam_conv_seg = nn.Conv2d(channels, self.out_channels, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H, W), in training with both branches'."""
        x = self._transform_inputs(inputs)
        position = self.pam_out_conv(self.pam(self.pam_in_conv(x)))
        channel = self.cam_out_conv(self.cam(self.cam_in_conv(x)))
        if not self.training:
            return self.cls_seg(position + channel)
        extras = self.pam_cls_seg(position), self.cam_cls_seg(channel)
        return self.cls_seg(position + channel), *extras

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list[dict], *args: Any) -> Tensor:
        """Levels to logits (N, K, H, W) at the images' size; as the host's, but for one output."""
        return BaseDecodeHead.predict(self, inputs, batch_img_metas, *args)

    def loss_by_feat(self, seg_logits: Sequence[Tensor], batch_data_samples: list) -> dict:
        """Losses of the three logits, each (N, K, h, w) of any size, under the host's names.

        ``pam.gamma`` and ``cam.gamma`` are logged beside them: both start at 0, where the
        attentions add nothing.
        """
        losses = super().loss_by_feat([x.float() for x in seg_logits], batch_data_samples)
        gammas = {f'{name}.gamma': getattr(self, name).gamma.scale for name in ('pam', 'cam')}
        return losses | {name: gamma.detach().clone() for name, gamma in gammas.items()}

    @torch.no_grad()
    def explain(
        self, levels: Sequence[Tensor], *, point: tuple[float, float] | None = None
    ) -> dict[str, Tensor]:
        """What both attentions do, for levels (N, C_i, H_i, W_i).

        Args:
            levels: As for ``forward``.
            point: A pixel, (x, y) as fractions of width and height in [0, 1).

        Returns:
            ``position_attention`` (N, 1, H, W), where a point is given: how much its pixel attends
            to each, 1 where that is the average; ``position_share`` and ``channel_share``
            (N, 1, H, W) in [0, 1]: how much of a branch's features either attention adds, 0 while
            its gamma is; ``channel_attention`` (N, C, C, 1): how much each channel (dim 2) attends
            to each (dim 1), 1 where that is the average; ``prediction_fused``,
            ``prediction_position`` and ``prediction_channel`` (N, K, H, W): the logits of all three
            classifiers.
        """
        x = self._transform_inputs(levels)
        position, channel, maps = self.pam_in_conv(x), self.cam_in_conv(x), {}
        if point is not None:
            weights = self.pam.weights_of(position, point)
            maps['position_attention'] = weights * weights[0].numel()
        attended = self.pam(position), self.cam(channel)
        maps['position_share'] = _share(attended[0], position)
        maps['channel_share'] = _share(attended[1], channel)
        maps['channel_attention'] = self.cam.weights(channel).mT[..., None] * channel.shape[1]
        position, channel = self.pam_out_conv(attended[0]), self.cam_out_conv(attended[1])
        maps['prediction_fused'] = self.cls_seg(position + channel)
        maps['prediction_position'] = self.pam_cls_seg(position)
        maps['prediction_channel'] = self.cam_cls_seg(channel)
        return maps


def _share(attended: Tensor, x: Tensor) -> Tensor:
    """What attention added to x, by norms (N, 1, H, W): the added over the added and x."""
    added, own = (y.float().norm(dim=1, keepdim=True) for y in (attended - x, x))
    return added / (added + own).clamp(min=1e-12)
