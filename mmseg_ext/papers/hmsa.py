"""HMSA: Hierarchical Multi-Scale Attention for Semantic Segmentation.

Tao, Sapra, Catanzaro, arXiv 2005.10821 (2020).
Code: NVIDIA/semantic-segmentation (BSD-3-Clause style).

Differs from it:

- any decode head takes part, not only OCRNet's;
- logits are resized straight to the next scale where that is the same function;
- the attention of the largest scale, which nothing uses, runs only for its running statistics, and
  auxiliary logits are made only in training;
- every scale list works at inference, sizes come from the input and not from a nominal factor.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder

from ..errors import UserError
from ..layers.feature_tap import WrapperHead, substitute
from ..layers.pytorch_init import PyTorchInit
from ..layers.sizes import Size, size_of


class ScaleAttention(PyTorchInit):
    """Features to the weight, in (0, 1), that their scale gets against the next finer one.

    Args:
        in_channels: Channels of the features.
        channels: Width of the 3x3 convolutions.
        num_convs: How many of them.
        out_channels: One map, as in the paper.
        norm_cfg: Norm of the 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        num_convs: int = 2,
        out_channels: int = 1,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.Sequential(
            *(
                ConvModule(before, after, 3, padding=1, norm_cfg=norm_cfg or dict(type='BN'))
                for before, after in zip(widths, widths[1:], strict=False)
            )
        )
        self.conv_attention = nn.Conv2d(widths[-1], out_channels, 1, bias=False)

    def forward(self, feats: Tensor) -> Tensor:
        """(N, C, h, w) to (N, 1, h, w), float32."""
        return self.conv_attention(self.convs(feats)).float().sigmoid()


@MODELS.register_module()
class HMSAHead(WrapperHead):
    """Adds scale attention to any decode head; part of the segmentor ``HMSA``.

    Args:
        head: The decode head, e.g. ``dict(type='FCNHead', channels=512)``; what it leaves out
            (``num_classes``, ``in_channels``, ...) comes from the base model's ``decode_head``.
        attention_channels: Width of the attention's 3x3 convolutions (256 as released).
        attention_convs: Their number (2 as released).
        **kwargs: Handed to ``head``.
    """

    def __init__(
        self,
        *,
        head: dict,
        attention_channels: int = 256,
        attention_convs: int = 2,
        segmentor: str | None = None,
        **kwargs: Any,
    ) -> None:
        if segmentor != 'HMSA':
            raise UserError(
                "HMSAHead predicts a weight for each scale, which only type='HMSA' uses: "
                "set model=dict(type='HMSA') or take the head without HMSAHead"
            )
        super().__init__(head=head, **kwargs)
        self.scale_attn = ScaleAttention(
            self.head.conv_seg.in_channels,
            attention_channels,
            num_convs=attention_convs,
            norm_cfg=self.head.norm_cfg,
        )

    def forward(
        self, inputs: Sequence[Tensor], *, largest: bool = False, **side_inputs: Any
    ) -> tuple[Any, Tensor, Tensor | None]:
        """Runs the head and the attention on one scale's features.

        Args:
            inputs: Levels (N, C_i, H_i, W_i) of the backbone or neck.
            largest: No finer scale follows: the attention is not returned. In training it still
                runs, without a graph, since its running statistics count this pass.
            **side_inputs: What the head takes besides features.

        Returns:
            The head's output, its logits (N, K, h, w), and the attention (N, 1, h, w) or None.
        """
        output, feats, logits = self.tap(self.head, inputs, **side_inputs)
        if not largest:
            return output, logits, self.scale_attn(feats)
        if self.training:
            with torch.no_grad():
                self.scale_attn(feats)
        return output, logits, None


class ScalePass(NamedTuple):
    """What the network says of one resizing of the images."""

    size: Size
    feats: list[Tensor]  # of the backbone or neck
    output: Any  # of the head
    logits: Tensor  # (N, K, h, w)
    attention: Any  # (N, 1, h, w), None for the largest scale


def scaled_size(size: Size, scale: Fraction) -> Size:
    """Size (h, w) times the scale, rounded down; exact and traceable."""
    h, w = (n * scale.numerator // scale.denominator for n in size)
    return h, w


def resize_float(x: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """Bilinear, without antialiasing, to (h, w), in float32."""
    x = x.float()
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


def skips_full_size(logits: Tensor, size: Size, next_size: Size) -> bool:
    """Whether enlarging ``logits`` to ``size`` and halving that equals resizing to ``next_size``.

    It does when an even whole factor leads to ``next_size``: the two pixels that halving averages
    then lie between the same two logits.
    """
    return all(
        large == 2 * small and small % (2 * low) == 0
        for low, large, small in zip(logits.shape[2:], size, next_size, strict=True)
    )


@MODELS.register_module()
class HMSA(WindowedEncoderDecoder):
    """Runs one network on several resizings of the image and mixes their logits by attention.

    Args:
        decode_head: ``dict(type='HMSAHead', head=dict(...))``.
        train_scales: At least two, 1.0 among them (Sec. 3 of the paper: 0.5 and 1.0).
        test_scales: 1.0 among them; chained from the largest to the smallest.
        loss_single: Loss of each training scale's own logits, e.g. the released Cityscapes recipe's
            ``dict(type='PixelSumBCELoss', loss_weight=0.05)``; None for none.
        **kwargs: As for ``EncoderDecoder``.

    Raises:
        ValueError: 1.0 missing from scales, a scale that is not positive or repeated, one training
            scale only, or a decode head other than ``HMSAHead``.
    """

    def __init__(
        self,
        *,
        train_scales: Sequence[float] = (0.5, 1.0),
        test_scales: Sequence[float] = (0.5, 1.0, 2.0),
        loss_single: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.train_scales = _sorted_scales('train_scales', train_scales)
        self.test_scales = _sorted_scales('test_scales', test_scales)
        if len(self.train_scales) < 2:
            raise UserError(
                f'train_scales={tuple(train_scales)} leaves the attention nothing to learn: '
                'name a second scale, e.g. (0.5, 1.0)'
            )
        super().__init__(**kwargs)
        self.loss_single: Any = MODELS.build(loss_single) if loss_single else None

    def _init_decode_head(self, decode_head: Any) -> None:
        if not isinstance(decode_head, Mapping) or decode_head.get('type') != 'HMSAHead':
            raise UserError(
                'HMSA needs one head that predicts scale weights: write '
                "decode_head=dict(type='HMSAHead', head=dict(type=...)), got "
                f'{decode_head.get("type") if isinstance(decode_head, Mapping) else "a list"}'
            )
        super()._init_decode_head(dict(decode_head, segmentor='HMSA'))

    def run_scale(
        self, inputs: Tensor, scale: Fraction, *, largest: bool = False, **side_inputs: Any
    ) -> ScalePass:
        """Everything that the network says of the images (N, 3, H, W) resized by ``scale``."""
        size = scaled_size(size_of(inputs), scale)
        if min(size) < 1:
            raise UserError(
                f'an image of {size_of(inputs)} has no pixel left at scale {float(scale):g}: '
                'use larger scales'
            )
        if scale != 1:
            inputs = F.interpolate(
                inputs, size=size, mode='bilinear', align_corners=self.align_corners
            )
        feats = self.extract_feat(inputs)
        return ScalePass(size, feats, *self.decode_head(feats, largest=largest, **side_inputs))

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of the mixed logits, and of each scale's own where ``loss_single`` is set.

        Args:
            inputs: Images (N, 3, H, W), normalised.
            data_samples: With ``gt_sem_seg`` (1, H, W) of class indices.
        """
        sides = self.side_inputs(inputs, data_samples)
        passes = {  # low first: norms see the scales in this order
            scale: self.run_scale(inputs, scale, largest=scale == self.train_scales[0], **sides)
            for scale in reversed(self.train_scales)
        }
        maps = {
            scale: [self._resize(m, own.size) for m in self._class_maps(own)]
            for scale, own in passes.items()
        }
        full = passes[Fraction(1)]
        output = full.output
        for old, new in zip(self._class_maps(full), self._mix_maps(maps, passes), strict=True):
            output = substitute(output, old, new)
        losses = add_prefix(self.decode_head.head.loss_by_feat(output, data_samples), 'decode')
        if self.loss_single is not None:
            losses |= self._single_losses(maps, data_samples)
        if self.with_auxiliary_head:
            losses |= self._auxiliary_head_forward_train(full.feats, data_samples)
        return losses

    def _class_maps(self, own: ScalePass) -> list[Tensor]:
        """A scale's logits, and those that the head's training output holds beside them."""
        extras = getattr(self.decode_head.head, 'aux_logits', ())
        return [own.logits, *(own.output[place] for place in extras)]

    def _mix_maps(
        self, maps: dict[Fraction, list[Tensor]], passes: dict[Fraction, ScalePass]
    ) -> list[Tensor]:
        """Each of the ``maps``, at their scales' sizes, mixed over the training scales."""
        largest, *others = self.train_scales
        mixed = maps[largest]
        for scale in others:
            weight = self._resize(passes[scale].attention, passes[scale].size)
            mixed = [self._mix(*m, weight, scale) for m in zip(maps[scale], mixed, strict=True)]
        return mixed

    def _mix(self, own: Tensor, pred: Tensor, weight: Tensor, scale: Fraction) -> Tensor:
        """One step of the chain: ``own`` and its ``weight`` at their scale's size, ``pred`` so far.

        At 1 and above the prediction comes down to the scale, below 1 the scale comes up to the
        prediction; there the product is formed before it is resized.
        """
        if scale >= 1:
            lerp = torch.lerp if torch.is_grad_enabled() else Tensor.lerp_  # the graph keeps `pred`
            return lerp(self._resize(pred, size_of(own)), own, weight)
        size = size_of(pred)
        product = self._resize(weight * own, size)
        weight = self._resize(weight, size)
        return product.add_(pred).addcmul_(weight, pred, value=-1)

    def _single_losses(self, maps: dict[Fraction, list[Tensor]], data_samples: list) -> dict:
        """``loss_single`` on every scale's own logits, resized to the labels."""
        head, loss = self.decode_head.head, self.loss_single
        label = head._stack_batch_gt(data_samples).squeeze(1)
        return {
            f'scale_{float(scale):g}.{loss.loss_name}': loss(
                self._resize(logits, label.shape[1:]), label, ignore_index=head.ignore_index
            )
            for scale, (logits, *_) in maps.items()
        }

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Images (N, 3, H, W) to logits (N, K, H, W), float32, mixed over ``test_scales``."""
        sides = self.side_inputs(inputs, batch_img_metas)
        first, *others = self.test_scales
        size, _, _, logits, _ = self.run_scale(inputs, first, largest=True, **sides)
        following = scaled_size(size_of(inputs), others[0]) if first > 1 else size
        skips = not self.align_corners and skips_full_size(logits, size, following)
        pred = self._resize(logits, following if skips else size)
        for scale in others:
            size, _, _, logits, weight = self.run_scale(inputs, scale, **sides)
            pred = self._mix(self._resize(logits, size), pred, self._resize(weight, size), scale)
        return pred

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Logits (N, K, H, W), as ``encode_decode``."""
        metas = [sample.metainfo for sample in data_samples] if data_samples else None
        return self.encode_decode(inputs, metas)

    explains = True

    @torch.no_grad()
    def explain(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        *,
        pixel: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """What every test scale saw, at the input's size, for images (N, 3, H, W).

        Returns:
            ``prediction_<s>`` (N, K, H, W): the logits of scale s alone; ``attention_<s>``
            (N, 1, H, W) in [0, 1]: what it claims against the finer scales; ``scale_weight``
            (N, S, H, W): the effective weight of every scale, coarsest first, which sum to 1; then
            the maps of the head itself at scale 1, of the ``pixel`` where it explains one.
        """
        sides = self.side_inputs(inputs, data_samples)
        of_head: dict[str, Tensor] = {}
        size = size_of(inputs)
        maps: dict[str, Tensor] = {}
        rest = inputs.new_ones(len(inputs), 1, *size)  # what the coarser scales leave
        weights: list[Tensor] = []
        for scale in reversed(self.test_scales):
            own = self.run_scale(inputs, scale, largest=scale == self.test_scales[0], **sides)
            if scale == 1:
                of_head = self.explain_head(own.feats, inputs, data_samples, pixel)
            maps[f'prediction_{float(scale):g}'] = self._resize(own.logits, size)
            if own.attention is None:
                weights.append(rest)
                break
            attention = self._resize(own.attention, size)
            maps[f'attention_{float(scale):g}'] = attention
            weights.append(rest * attention)
            rest = rest * (1 - attention)
        return maps | dict(scale_weight=torch.cat(weights, dim=1)) | of_head

    def _resize(self, x: Tensor, size: Size) -> Tensor:
        return resize_float(x, size, self.align_corners)


def _sorted_scales(name: str, scales: Sequence[float]) -> list[Fraction]:
    """Exact scales from the largest to the smallest.

    Raises:
        TypeError: ``scales`` is one number.
        ValueError: 1.0 is missing, one is not positive, or one is named twice.
    """
    if isinstance(scales, int | float):
        raise UserError(f'{name}={scales} must be a list of scales, (0.5, 1.0) for example')
    exact = sorted((Fraction(str(scale)) for scale in scales), reverse=True)
    if 1 not in exact:
        raise UserError(f'{name}={tuple(scales)} must contain 1.0: the others are mixed into it')
    if exact[-1] <= 0 or len(set(exact)) < len(exact):
        raise UserError(f'{name}={tuple(scales)} must be positive and name each scale once')
    return exact
