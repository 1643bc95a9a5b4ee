"""HMSA: Hierarchical Multi-Scale Attention for Semantic Segmentation.

Tao, Sapra, Catanzaro, arXiv 2005.10821 (2020).
Code: NVIDIA/semantic-segmentation (BSD-3-Clause style).

Differs from it:

- it works with any decode head, not only with OCRNet's;
- logits are resized directly to the next scale where that is the same function;
- the attention of the largest scale, whose result is not used, runs only in training, for its
  running statistics; auxiliary logits are computed only in training;
- inference accepts every list of scales; sizes are computed from the input, not from a nominal
  factor.
"""

from collections.abc import Sequence
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
from ..host import labels_of_batch
from ..layers.feature_tap import WrapperHead, substitute
from ..layers.pytorch_init import PyTorchInit
from ..layers.sizes import Size, size_of
from ..segmentors.pairs import check_head_class
from ..segmentors.protocols import HasAuxiliaryLogits, Maps, Pixel


class ScaleAttention(PyTorchInit):
    """Features of a scale to its weight in (0, 1) against the next finer scale.

    Args:
        in_channels: Channels of the features.
        channels: Width of the 3x3 convolutions.
        num_convs: Number of the 3x3 convolutions.
        out_channels: Number of weights per pixel (1 in the paper).
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
        """Features (N, C, h, w) to weights (N, 1, h, w), float32."""
        return self.conv_attention(self.convs(feats)).float().sigmoid()


@MODELS.register_module()
class HMSAHead(WrapperHead):
    """Adds scale attention to any decode head; works only in the segmentor ``HMSA``.

    Args:
        head: Config of the decode head, e.g. ``dict(type='FCNHead', channels=512)``. Missing keys
            (``num_classes``, ``in_channels``, ...) come from the base model's ``decode_head``.
        attention_channels: Width of the attention's 3x3 convolutions (256 as released).
        attention_convs: Number of these convolutions (2 as released).
        **kwargs: Further arguments of ``head``.
    """

    needs_segmentor = 'HMSA'
    segmentor_advice = (
        "HMSAHead predicts a weight for each scale, which only type='HMSA' uses: "
        "set model=dict(type='HMSA') or take the head without HMSAHead"
    )

    def __init__(
        self,
        *,
        head: dict,
        attention_channels: int = 256,
        attention_convs: int = 2,
        **kwargs: Any,
    ) -> None:
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
        """Runs the head and the attention on the features of one scale.

        Args:
            inputs: Levels (N, C_i, H_i, W_i) of the backbone or neck.
            largest: Whether this is the largest scale, whose attention is not needed. In training
                the attention still runs, without a graph, to update its running statistics.
            **side_inputs: Keyword arguments of the head beside the levels.

        Returns:
            Output of the head, its logits (N, K, h, w), and the attention (N, 1, h, w) or None.
        """
        output, feats, logits = self.tap(self.head, inputs, **side_inputs)
        if not largest:
            return output, logits, self.scale_attn(feats)
        if self.training:
            with torch.no_grad():
                self.scale_attn(feats)
        return output, logits, None

    def loss(self, *args: Any) -> Any:
        """Not for use, like ``predict``: the segmentor ``HMSA`` computes losses and logits.

        Raises:
            UserError: Another segmentor called it.
        """
        raise UserError(self.segmentor_advice)

    predict = loss


class ScalePass(NamedTuple):
    """Features, logits and attention of the images at one scale."""

    size: Size  # of the resized images
    feats: list[Tensor]  # levels of the backbone or neck
    output: Any  # result of the head
    logits: Tensor  # (N, K, h, w)
    attention: Any  # (N, 1, h, w), None for the largest scale


def scaled_size(size: Size, scale: Fraction) -> Size:
    """Size (h, w) times the scale, rounded down; exact and traceable."""
    h, w = (n * scale.numerator // scale.denominator for n in size)
    return h, w


def resize_float(x: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """Bilinear resizing to (h, w), without antialiasing, in float32."""
    x = x.float()
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


def skips_full_size(logits: Tensor, size: Size, next_size: Size) -> bool:
    """Whether resizing ``logits`` to ``size`` and then to ``next_size`` is the same as directly.

    That holds where ``size`` is twice ``next_size``, and ``next_size`` an even multiple of the size
    of the logits: the two pixels that halving averages then lie between the same two logits.
    """
    return all(
        large == 2 * small and small % (2 * low) == 0
        for low, large, small in zip(logits.shape[2:], size, next_size, strict=True)
    )


@MODELS.register_module()
class HMSA(WindowedEncoderDecoder):
    """Runs one network on the image at several scales and mixes their logits by attention.

    Args:
        decode_head: Config of the head, ``dict(type='HMSAHead', head=dict(...))``.
        train_scales: Two or more scales, including 1.0 (Sec. 3 of the paper: 0.5 and 1.0).
        test_scales: Scales of inference, including 1.0; mixed from the largest to the smallest.
        loss_single: Loss of the logits of each training scale before they are mixed. The released
            Cityscapes recipe has ``dict(type='PixelSumBCELoss', loss_weight=0.05)``. None for no
            such loss.
        **kwargs: Arguments of ``EncoderDecoder``.

    Raises:
        UserError: Scales without 1.0, a scale that is not positive or repeated, a single training
            scale, or a decode head other than ``HMSAHead``.
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
        if len(self.test_scales) == 1:
            self.training_parts = ('auxiliary_head', 'decode_head.scale_attn')
        self.loss_single: Any = MODELS.build(loss_single) if loss_single else None

    def _init_decode_head(self, decode_head: Any) -> None:
        check_head_class(
            decode_head,
            HMSAHead,
            'HMSA needs one head that predicts scale weights: write '
            "decode_head=dict(type='HMSAHead', head=dict(type=...))",
        )
        super()._init_decode_head(decode_head)
        head = self.decode_head.head
        # Positions, in the head's training output, of further logits that are mixed too.
        self._auxiliary: Sequence[int] = ()
        if isinstance(head, HasAuxiliaryLogits):
            self._auxiliary = head.aux_logits

    def run_scale(
        self, inputs: Tensor, scale: Fraction, *, largest: bool = False, **side_inputs: Any
    ) -> ScalePass:
        """Features, logits and attention of the images (N, 3, H, W) at a scale."""
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

    def compute_losses(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of the mixed logits, and with ``loss_single`` those of each scale's logits.

        Args:
            inputs: Images (N, 3, H, W), normalised.
            data_samples: Data samples with ``gt_sem_seg``, class indices (1, H, W).
        """
        side_inputs, largest = self.side_inputs(inputs, data_samples), self.train_scales[0]
        passes = {  # smallest scale first: norms are updated in this order
            scale: self.run_scale(inputs, scale, largest=scale == largest, **side_inputs)
            for scale in reversed(self.train_scales)
        }
        maps = {
            scale: [
                self._resize(logits, scale_pass.size) for logits in self._class_maps(scale_pass)
            ]
            for scale, scale_pass in passes.items()
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

    def _class_maps(self, scale_pass: ScalePass) -> list[Tensor]:
        """Logits of a scale, and the auxiliary logits of the head's training output."""
        auxiliary = [scale_pass.output[position] for position in self._auxiliary]
        return [scale_pass.logits, *auxiliary]

    def _mix_maps(
        self, maps: dict[Fraction, list[Tensor]], passes: dict[Fraction, ScalePass]
    ) -> list[Tensor]:
        """Each of the ``maps``, at the sizes of their scales, mixed over the training scales."""
        largest, *smaller = self.train_scales
        mixed = maps[largest]
        for scale in smaller:
            weight = self._resize(passes[scale].attention, passes[scale].size)
            mixed = [self._mix(*m, weight, scale) for m in zip(maps[scale], mixed, strict=True)]
        return mixed

    def _mix(self, logits: Tensor, pred: Tensor, weight: Tensor, scale: Fraction) -> Tensor:
        """One step of the chain from the largest scale to the smallest.

        With logits l and weight w of this scale, the prediction p of all larger scales, and R for
        resizing::

            scale >= 1:  w * l + (1 - w) * R(p)           at the size of this scale
            scale < 1:   R(w * l) + (1 - R(w)) * p        at the size of p

        Args:
            logits: Logits l (N, K, h, w) at the size of this scale.
            pred: Prediction p of the larger scales (N, K, H, W); may be overwritten in inference.
            weight: Attention w (N, 1, h, w) at the size of this scale.
            scale: Scale of ``logits``.
        """
        if scale >= 1:
            lerp = torch.lerp if torch.is_grad_enabled() else Tensor.lerp_  # the graph keeps `pred`
            return lerp(self._resize(pred, size_of(logits)), logits, weight)
        size = size_of(pred)
        product = self._resize(weight * logits, size)
        weight = self._resize(weight, size)
        return product.add_(pred).addcmul_(weight, pred, value=-1)

    def _single_losses(self, maps: dict[Fraction, list[Tensor]], data_samples: list) -> dict:
        """``loss_single`` of the logits of each scale, resized to the labels."""
        head, loss = self.decode_head.head, self.loss_single
        label = labels_of_batch(head, data_samples)
        return {
            f'scale_{float(scale):g}.{loss.loss_name}': loss(
                self._resize(logits, size_of(label)), label, ignore_index=head.ignore_index
            )
            for scale, (logits, *_) in maps.items()
        }

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Images (N, 3, H, W) to logits (N, K, H, W), float32, mixed over ``test_scales``."""
        side_inputs = self.side_inputs(inputs, batch_img_metas)
        largest, *smaller = self.test_scales
        size, _, _, logits, _ = self.run_scale(inputs, largest, largest=True, **side_inputs)
        following = scaled_size(size_of(inputs), smaller[0]) if largest > 1 else size
        skips = not self.align_corners and skips_full_size(logits, size, following)
        pred = self._resize(logits, following if skips else size)
        for scale in smaller:
            size, _, _, logits, weight = self.run_scale(inputs, scale, **side_inputs)
            pred = self._mix(self._resize(logits, size), pred, self._resize(weight, size), scale)
        return pred

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Logits (N, K, H, W), as ``encode_decode``."""
        metas = [sample.metainfo for sample in data_samples] if data_samples else None
        return self.encode_decode(inputs, metas)

    explains = True

    @torch.no_grad()
    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Logits and weights of each test scale for images (N, 3, H, W), at the input's size.

        Returns:
            - ``prediction_<s>`` (N, K, H, W): logits of scale s alone.
            - ``attention_<s>`` (N, 1, H, W) in [0, 1]: weight of scale s against the larger scales.
            - ``scale_weight`` (N, S, H, W): weight of each scale in the mixture, from the smallest
              scale to the largest; they sum to 1.
            - Maps of the decode head at scale 1.
        """
        side_inputs = self.side_inputs(inputs, data_samples)
        head_maps: Maps = {}
        size = size_of(inputs)
        maps: Maps = {}
        remainder = inputs.new_ones(len(inputs), 1, *size)  # 1 minus the weights so far
        weights: list[Tensor] = []
        for scale in reversed(self.test_scales):
            largest = scale == self.test_scales[0]
            scale_pass = self.run_scale(inputs, scale, largest=largest, **side_inputs)
            if scale == 1:
                head_maps = self.explain_head(scale_pass.feats, inputs, data_samples, pixel)
            maps[f'prediction_{float(scale):g}'] = self._resize(scale_pass.logits, size)
            if scale_pass.attention is None:
                weights.append(remainder)
                break
            attention = self._resize(scale_pass.attention, size)
            maps[f'attention_{float(scale):g}'] = attention
            weights.append(remainder * attention)
            remainder = remainder * (1 - attention)
        return maps | dict(scale_weight=torch.cat(weights, dim=1)) | head_maps

    def _resize(self, x: Tensor, size: Size) -> Tensor:
        return resize_float(x, size, self.align_corners)


def _sorted_scales(name: str, scales: Sequence[float]) -> list[Fraction]:
    """Exact scales from the largest to the smallest.

    Raises:
        UserError: ``scales`` is a number, does not contain 1.0, or has a scale that is not positive
            or is named twice.
    """
    if isinstance(scales, int | float):
        raise UserError(f'{name}={scales} must be a list of scales, (0.5, 1.0) for example')
    exact = sorted((Fraction(str(scale)) for scale in scales), reverse=True)
    if 1 not in exact:
        raise UserError(f'{name}={tuple(scales)} must contain 1.0, the scale of the result')
    if exact[-1] <= 0 or len(set(exact)) < len(exact):
        raise UserError(f'{name}={tuple(scales)} must be positive and name each scale once')
    return exact
