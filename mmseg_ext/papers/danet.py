"""DANet: Dual Attention Network for Scene Segmentation.

Fu, Liu, Tian, Li, Bao, Fang, Lu, CVPR 2019, arXiv 1809.02983.
Code: junfu1115/DANet (MIT).

Differs from it, and from the host's ``DAHead``, whose weights load:

- forward and backward never hold an L x L matrix of all pairs of pixels;
- channel attention is float32 also under autocast, because its energies are sums over all pixels;
- inference runs only the classifier of the fused features;
- query and key are plain convolutions as in the code, while the paper draws BN and ReLU.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.da_head import CAM, PAM, DAHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..layers.head_defaults import released_defaults
from ..layers.precision import at_least_float32, wide_dtype
from ..layers.pytorch_init import PyTorchInit
from ..segmentors.protocols import Maps, Point

# Attention weights at a time: 96 MiB in float32; on a CPU 16 MiB, which its cache holds.
BLOCK, ON_A_CPU = 3 * 2**23, 2**22


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """``softmax(query^T key)``: weights (N, R, L), which sum to 1 over L.

    The energies are not divided by sqrt(D). They are computed in float32 at least: bfloat16 would
    round an energy of 50 by up to an eighth.

    Args:
        query: (N, D, R).
        key: (N, D, L).
    """
    with torch.autocast(query.device.type, enabled=False):
        return (at_least_float32(query).mT @ at_least_float32(key)).softmax(dim=-1)


def _weights_by_block(query: Tensor, key: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """``attention_weights`` of one image, a block of queries at a time.

    Yields a slice of the queries, their weights (rows, L), and a spare buffer of the same shape.
    All blocks share both buffers, because on a CPU new memory of this size costs as much time as
    the energies.
    """
    length = key.shape[1]
    block_size = ON_A_CPU if key.is_cpu else BLOCK
    rows = -(-length // -(-(length**2) // block_size))  # all blocks have about the same size
    query, key = at_least_float32(query).mT.contiguous(), at_least_float32(key)
    buffers = key.new_empty(2, rows, length)
    for start in range(0, length, rows):
        block = query[start : start + rows]
        weights, spare = buffers[:, : len(block)]
        torch.mm(block, key, out=spare)
        yield slice(start, start + rows), torch.softmax(spare, -1, out=weights), spare


def _attend(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """``attend`` for one image: (D, L), (D, L) and (C, L) into ``out`` (C, L)."""
    value = value.mT.contiguous()
    for rows, weights, _ in _weights_by_block(query, key):
        out[:, rows] = (weights.to(value.dtype) @ value).mT


def _attend_backward(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from the gradient of ``out``.

    With weights P = softmax(E), values V and the gradient G of out = P V: dV = P^T G, and
    dE = P * (G V^T - mean), where mean is the row sum of P * (G V^T), which equals that of G * out.
    """
    wide = wide_dtype(query)
    mean = (grad.to(wide) * out).sum(0)[:, None]  # (L, 1)
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
    """Adds ``a @ b``, computed in the dtype of ``b``, to a total of the same or a wider dtype."""
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
    """``attend``; backward computes the weights again."""

    @staticmethod
    def forward(ctx: Any, *images: Tensor) -> Tensor:
        out = torch.empty_like(images[-1])
        ctx.save_for_backward(*images, out)
        # Export traces into this function, and a graph does not allow writes into buffers.
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
            torch.stack(image_grads).to(x.dtype)
            for image_grads, x in zip(zip(*grads, strict=True), ctx.saved_tensors, strict=False)
        )


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mixture of all values for each pixel, ``value softmax(query^T key)^T``, in little memory.

    Args:
        query: (N, D, L).
        key: (N, D, L).
        value: (N, C, L).

    Returns:
        (N, C, L), in the dtype of ``value``.
    """
    return _Attend.apply(query, key, value)


class PositionAttention(PAM):
    """The host's ``PAM`` in blocks of queries: every pixel attends to all pixels (Sec. 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same: ``gamma * attended + x``."""
        layers = self.query_project, self.key_project, self.value_project
        query, key, value = (layer(x).flatten(2) for layer in layers)
        return self.gamma(attend(query, key, value).unflatten(2, x.shape[2:])) + x

    def weights_of(self, x: Tensor, point: Point) -> Tensor:
        """Weights of one pixel of x (N, C, H, W) over all pixels: (N, 1, H, W), which sum to 1.

        Args:
            x: Features.
            point: (x, y) of the pixel as fractions of width and height, in [0, 1).
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
        sign: Factor of the energies E. As released -1: the least similar channels get the largest
            weights (``softmax(max(E) - E)``). As printed in the paper +1.
    """

    def __init__(self, sign: int = -1) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same: ``gamma * attended + x``, in one product."""
        with torch.autocast(x.device.type, enabled=False):
            flat = self._flatten(x)
            weights = self.gamma(self._weights(flat))
            return torch.baddbmm(flat, weights, flat).unflatten(2, x.shape[2:]).to(x.dtype)

    def weights(self, x: Tensor) -> Tensor:
        """Weights (N, C, C) of x (N, C, H, W): each channel (row) over all channels (columns)."""
        with torch.autocast(x.device.type, enabled=False):
            return self._weights(self._flatten(x))

    def _weights(self, flat: Tensor) -> Tensor:
        return (self.sign * (flat @ flat.mT)).softmax(dim=-1)

    @staticmethod
    def _flatten(x: Tensor) -> Tensor:
        return at_least_float32(x.flatten(2))


@MODELS.register_module()
class DANetHead(PyTorchInit, DAHead):
    """Sums the features of position attention and of channel attention, and classifies all three.

    Args:
        in_channels: Channels of the features, or of each level with an ``input_transform`` that
            joins levels.
        channels: Width of both branches; by default a quarter of the input's (512 of 2048).
        pam_channels: Width of query and key; an eighth of ``channels`` by default.
        cam_sign: -1 as released, +1 as printed in the paper; see ``ChannelAttention``.
        **kwargs: Further arguments of the host's ``DAHead``, here with ``align_corners=True``.

    Raises:
        UserError: No channel is left for query and key, or ``cam_sign`` is another number.
    """

    host_counterpart = dict(type='DAHead', pam_channels=64)

    aux_logits = (1, 2)
    training_parts = ('pam_conv_seg', 'cam_conv_seg')
    explains_pixels = True

    def __init__(
        self,
        *,
        in_channels: int | Sequence[int],
        channels: int | None = None,
        pam_channels: int | None = None,
        cam_sign: int = -1,
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
        super().__init__(
            pam_channels,
            in_channels=in_channels,
            channels=channels,
            **released_defaults(kwargs, align_corners=True),
        )
        self.pam = PositionAttention(channels, pam_channels)
        self.cam = ChannelAttention(cam_sign)
        # The host's classifiers have num_classes outputs, also where two classes share an output.
        self.pam_conv_seg = nn.Conv2d(channels, self.out_channels, 1)
        self.cam_conv_seg = nn.Conv2d(channels, self.out_channels, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H, W).

        In training a tuple: these logits, those of position and those of channel attention.
        """
        x = self._transform_inputs(inputs)
        position = self.pam_out_conv(self.pam(self.pam_in_conv(x)))
        channel = self.cam_out_conv(self.cam(self.cam_in_conv(x)))
        if not self.training:
            return self.cls_seg(position + channel)
        extras = self.pam_cls_seg(position), self.cam_cls_seg(channel)
        return self.cls_seg(position + channel), *extras

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list[dict], *args: Any) -> Tensor:
        """Levels to logits (N, K, H, W) at the size of the images."""
        return BaseDecodeHead.predict(self, inputs, batch_img_metas, *args)

    def loss_by_feat(self, seg_logits: Sequence[Tensor], batch_data_samples: list) -> dict:
        """Losses of the three logits, each (N, K, h, w) of any size, under the host's names.

        ``pam.gamma`` and ``cam.gamma`` are logged too. Both start at 0, and an attention adds
        nothing while its gamma is 0.
        """
        losses = super().loss_by_feat([x.float() for x in seg_logits], batch_data_samples)
        gammas = {f'{name}.gamma': getattr(self, name).gamma.scale for name in ('pam', 'cam')}
        return losses | {name: gamma.detach().clone() for name, gamma in gammas.items()}

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of both attentions, for levels (N, C_i, H_i, W_i).

        Returns:
            - ``position_attention`` (N, 1, H, W), only with a point: weights of its pixel over all
              pixels, as multiples of the average weight.
            - ``position_share`` and ``channel_share`` (N, 1, H, W) in [0, 1]: fraction of the
              features of a branch that its attention adds; 0 while its gamma is 0.
            - ``channel_attention`` (N, C, C, 1): weights of each channel (dim 2) over all channels
              (dim 1), as multiples of the average weight.
            - ``prediction_fused``, ``prediction_position``, ``prediction_channel`` (N, K, H, W):
              logits of the three classifiers.
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
    """Fraction that attention added to x: |attended - x| / (|attended - x| + |x|), (N, 1, H, W)."""
    added, before = (y.float().norm(dim=1, keepdim=True) for y in (attended - x, x))
    return added / (added + before).clamp(min=1e-12)
