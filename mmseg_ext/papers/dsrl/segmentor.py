"""DSRL's segmentor and the loss of its reconstruction."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_ext.host import swaps_channels
from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder

from ...errors import UserError
from ...layers.feature_tap import FeatureTap, WrapperHead, substitute
from ...layers.levels import resize
from ...layers.pixel_values import denormalize
from ...layers.sizes import Size, padding_of, size_of, without_padding
from ...segmentors.protocols import Maps, Pixel
from .affinity import affinity_difference, affinity_of_pixel


@MODELS.register_module()
class ReconstructionLoss(nn.Module):
    """Mean squared difference of two images.

    Args:
        loss_weight: Factor of the loss (w1 = 0.1 in the paper).
        loss_name: Key in the log; has to contain "loss" to be trained.
    """

    def __init__(self, loss_weight: float = 0.1, loss_name: str = 'loss_mse') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, image: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Loss of images (N, 3, H, W), a scalar in float32, over the pixels that are ``valid``.

        ``valid`` is bool (N, 1, H, W); None for all pixels.
        """
        squares = (image.float() - target.float()).square()
        if valid is None:
            return self.loss_weight * squares.mean()
        count = image.shape[1] * valid.sum().clamp(min=1)
        return self.loss_weight * torch.where(valid, squares, 0).sum() / count


SSSR = MappingProxyType(dict(type='PixelShuffleUpsampler'))
SISR = MappingProxyType(dict(type='ESPCNDecoder'))
LOSS_SISR = MappingProxyType(dict(type='ReconstructionLoss'))
LOSS_FA = MappingProxyType(dict(type='FeatureAffinityLoss'))
TRAINING_ONLY = ('sisr', 'fa_transform')  # modules


def halved(size: Sequence[int]) -> Size:
    """Half of (h, w), rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


@MODELS.register_module()
class DSRL(WindowedEncoderDecoder):
    """Runs the network on images of half size, predicts at full size, and learns to reconstruct.

    It takes any backbone, neck and decode head. Only ``sssr`` is used in predictions, the other
    parts only in training. A part's config may omit ``type``.

    Args:
        sssr: Config of the upsampler of the logits. Where its result is smaller or larger than the
            image, it is resized bilinearly. None resizes the logits in one step.
        sisr: Config of the decoder of the image; None for no reconstruction. Without
            ``in_channels`` and ``in_index`` it reads the levels that the decode head reads.
        loss_sisr: Config of the loss of the reconstruction against the normalised image, without
            its padding.
        loss_fa: Config of the affinity loss between the last features of both branches; None for
            no such loss. It needs ``sisr``.
        fa_in: Input of the affinity loss: 'features', or 'outputs' to compare full-size logits with
            the reconstructed image, as in the third-party code.
        antialias: Whether images are halved by PIL's wider filter, as in the test of the released
            model.
        **kwargs: Arguments of ``WindowedEncoderDecoder``.

    Raises:
        UserError: A cascade, a wrapper head or a head without ``conv_seg``, an unknown ``fa_in``,
            or a reconstruction without loss.
    """

    training_parts = ('auxiliary_head', *TRAINING_ONLY)

    # Modules, or None in a model without them.
    sisr: Any
    loss_sisr: Any
    loss_fa: Any
    fa_transform: Any

    def __init__(
        self,
        *,
        sssr: Mapping | None = SSSR,
        sisr: Mapping | None = SISR,
        loss_sisr: Mapping | None = LOSS_SISR,
        loss_fa: Mapping | None = LOSS_FA,
        fa_in: str = 'features',
        antialias: bool = False,
        **kwargs: Any,
    ) -> None:
        if fa_in not in ('features', 'outputs'):
            raise UserError(f"fa_in={fa_in!r} must be 'features' or 'outputs'")
        if sisr is not None and loss_sisr is None:
            raise UserError('sisr without loss_sisr does not learn the image: set sisr=None too')
        super().__init__(**kwargs)
        head = self.decode_head
        self.antialias = antialias
        common = dict(norm_cfg=head.norm_cfg)
        channels = head.conv_seg.out_channels
        self.sssr = _build(sssr, SSSR, num_classes=channels, **common)
        self.sisr = _build(sisr, SISR, **self.head_levels, **common)
        self.loss_sisr = self.loss_fa = self.fa_transform = None
        self.fa_of_outputs = fa_in == 'outputs'
        if self.sisr is not None:
            self.loss_sisr = _build(loss_sisr, LOSS_SISR)
            self.loss_fa = _build(loss_fa, LOSS_FA)
        if self.loss_fa is not None:
            widths = (
                (channels, 3)
                if self.fa_of_outputs
                else (
                    head.conv_seg.in_channels,
                    self.sisr.feat_channels,
                )
            )
            self.fa_transform = ConvModule(*widths, 1, norm_cfg=head.norm_cfg or dict(type='BN'))

    def _init_decode_head(self, decode_head: Any) -> None:
        if not isinstance(decode_head, Mapping):
            raise UserError(
                f'DSRL takes one decode head, got a cascade of {len(decode_head)}: give one dict'
            )
        super()._init_decode_head(decode_head)
        channels = decode_head.get('in_channels', self.decode_head.in_channels)  # of each level
        self.head_levels = dict(in_channels=channels, in_index=self.decode_head.in_index)
        if isinstance(self.decode_head, WrapperHead | BaseCascadeDecodeHead):
            raise UserError(
                f'DSRL cannot take {type(self.decode_head).__name__}, which wraps or follows '
                'another head: choose a head that works alone'
            )
        self.tap = FeatureTap(self.decode_head, before_dropout=True)

    def halve(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to the network's input; for even sizes means of 2x2 pixels."""
        return F.interpolate(
            images,
            size=halved(images.shape[2:]),
            mode='bilinear',
            align_corners=self.align_corners and not self.antialias,
            antialias=self.antialias,
        )

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor]:
        """Levels of the halved images (N, 3, H, W)."""
        return super().extract_feat(self.halve(inputs))

    def run_head(
        self, levels: Sequence[Tensor], size: Size, side_inputs: dict[str, Any]
    ) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Runs the decode head on the levels of images of ``size``.

        Returns:
            Output of the head, features that its last layer reads (before dropout), logits in the
            output, and these logits at full size, (N, K, *size), float32.
        """
        output, feats, logits = self.tap(self.decode_head, levels, **side_inputs)
        up = logits if self.sssr is None else self.sssr(logits, halved(size))
        return output, feats, logits, resize(up.float(), size, self.align_corners)

    def compute_losses(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the full-size logits by the decode head, and losses of the reconstruction.

        ``sisr.psnr`` is the peak signal-to-noise ratio of the reconstruction, in decibels.

        Args:
            inputs: Images (N, 3, H, W), normalised.
            data_samples: Data samples with ``gt_sem_seg``, class indices (1, H, W).
        """
        size = size_of(inputs)
        levels = self.extract_feat(inputs)
        side_inputs = self.side_inputs(inputs, data_samples)
        output, feats, logits, full = self.run_head(levels, size, side_inputs)
        output = substitute(output, logits, full)
        losses = add_prefix(self.decode_head.loss_by_feat(output, data_samples), 'decode')
        if self.with_auxiliary_head:
            losses |= self._auxiliary_head_forward_train(levels, data_samples)
        if self.sisr is None:
            return losses
        image, sr_feats = self.sisr(levels, size)
        valid = unpadded(inputs, data_samples, self.decode_head.ignore_index)
        losses[f'sisr.{self.loss_sisr.loss_name}'] = self.loss_sisr(image, inputs, valid)
        with torch.no_grad():
            losses['sisr.psnr'] = peak_signal_to_noise(self._rgb(image), self._rgb(inputs), valid)
        if self.loss_fa is not None:
            seg, sr = self._compared(feats, full, image, sr_feats)
            losses[f'fa.{self.loss_fa.loss_name}'] = self.loss_fa(seg, sr, size)
        return losses

    def _compared(
        self, feats: Tensor, full: Tensor, image: Tensor, sr_feats: Tensor
    ) -> tuple[Tensor, Tensor]:
        seg, sr = (full, image) if self.fa_of_outputs else (feats, sr_feats)
        return self.fa_transform(seg), sr

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Images (N, 3, H, W) to logits (N, K, H, W), float32."""
        side_inputs = self.side_inputs(inputs, batch_img_metas)
        *_, full = self.run_head(self.extract_feat(inputs), size_of(inputs), side_inputs)
        return full[:, : self.out_channels]  # some heads have spare classes after these

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Logits (N, K, H, W), as ``encode_decode``."""
        metas = [sample.metainfo for sample in data_samples] if data_samples else None
        return self.encode_decode(inputs, metas)

    @property
    def explains(self) -> bool:
        """Whether there is a reconstruction to show, or the head has maps."""
        return self.sisr is not None or super().explains

    @property
    def explains_pixels(self) -> bool:
        """Whether the affinity of a pixel can be shown, or the head has maps of a pixel."""
        return self.loss_fa is not None or super().explains_pixels

    @torch.no_grad()
    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Reconstruction and affinities of images (N, 3, H, W).

        Returns:
            - ``image_reconstructed`` (N, 3, H, W), RGB in [0, 1].
            - ``affinity_difference`` (N, 1, h, w), with the affinity loss: mean difference between
              the similarities of a position to all positions in both branches.
            - ``affinity_of_seg`` and ``affinity_of_sr`` (N, 1, h, w), with a pixel too:
              similarities of all positions to the pixel, in each branch.
            - Maps of the decode head.
        """
        size = size_of(inputs)
        levels = self.extract_feat(inputs)
        maps: Maps = {}
        if self.sisr is not None:
            image, sr_feats = self.sisr(levels, size)
            maps['image_reconstructed'] = self._rgb(image)
        if self.loss_fa is not None:
            side_inputs = self.side_inputs(inputs, data_samples)
            _, feats, _, full = self.run_head(levels, size, side_inputs)
            pair = self.loss_fa.features(*self._compared(feats, full, image, sr_feats), size)
            maps['affinity_difference'] = affinity_difference(*pair)
            if pixel is not None:
                maps |= {
                    f'affinity_of_{name}': affinity_of_pixel(x, pixel, size)
                    for name, x in zip(('seg', 'sr'), pair, strict=True)
                }
        if self.loss_fa is not None and not super().explains_pixels:
            pixel = None  # it is explained above, without the head
        return maps | self.explain_head(levels, inputs, data_samples, pixel)

    def _rgb(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) in [0, 1], in the order red, green, blue."""
        images = denormalize(images, self.data_preprocessor)
        if not swaps_channels(self.data_preprocessor):  # OpenCV loads blue, green, red
            images = images.flip(1)
        return (images / 255).clamp(0, 1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Ignores weights of parts that the model lacks; keeps training parts without weights."""
        for name_of_part in TRAINING_ONLY:
            start = f'{prefix}{name_of_part}.'
            module = getattr(self, name_of_part)
            names = [name for name in state_dict if name.startswith(start)]
            if module is None:
                for name in names:
                    del state_dict[name]
            elif not names:
                state_dict.update(module.state_dict(prefix=start))
        super()._load_from_state_dict(state_dict, prefix, *args)


def peak_signal_to_noise(images: Tensor, references: Tensor, valid: Tensor) -> Tensor:
    """PSNR in decibels, at most 100, of images (N, 3, H, W) in [0, 1], at valid pixels alone."""
    error = (images - references).square().mean(1, keepdim=True)
    mean = torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)
    return -10 * mean.clamp(min=1e-10).log10()


def unpadded(images: Tensor, data_samples: list, ignore_index: int = 255) -> Tensor:
    """Pixels that are not padding, (N, 1, H, W), bool.

    Padding is what the preprocessor reports. Whole rows and columns of one colour without a label
    are padding too: a crop larger than the picture leaves them.

    Args:
        images: Images (N, 3, H, W).
        data_samples: Data samples with ``gt_sem_seg`` (1, H, W).
        ignore_index: Label of pixels without a class.
    """
    label = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
    inside = torch.zeros_like(label, dtype=torch.bool)
    for mask, sample in zip(inside, data_samples, strict=True):
        without_padding(mask, padding_of(sample.metainfo)).fill_(True)
    labelled = inside & (label != ignore_index)
    for dim in (2, 3):
        low = torch.where(inside, images, torch.inf).amin(dim, keepdim=True)
        high = torch.where(inside, images, -torch.inf).amax(dim, keepdim=True)
        flat = (low >= high).all(1, keepdim=True) & ~labelled.any(dim, keepdim=True)
        inside = inside & ~flat
    return inside


def _build(cfg: Mapping | None, default: Mapping, **common: Any) -> Any:
    """Module of a config, which may omit the type of ``default`` and the keys of ``common``."""
    return None if cfg is None else MODELS.build({'type': default['type'], **common, **cfg})
