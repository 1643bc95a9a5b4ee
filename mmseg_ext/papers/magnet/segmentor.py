"""MagNet's segmentor."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from mmengine.model import ModuleList
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ...checkpoints.fit import starts_pretrained
from ...errors import UserError
from ...layers.folding import FoldedCopy
from ...layers.sizes import Size, padding_of, without_padding
from ...segmentors.batches import check_images, check_logits, check_training_batch
from ...segmentors.protocols import Maps, Pixel, no_single_pixels
from .memory import MIB, PatchBatches, bytes_per_pixel, tiles_of
from .patches import Corner, patch_meta, resize, roi_align
from .points import nearest
from .refinement import Refinement, Stage, softmax
from .samples import Sample, accuracy, draw_sample, mean_iou, unpad
from .scales import check_scales, check_size, doubled_sizes, refined_sizes, refiner_index
from .settings import Inference

REFINER = MappingProxyType(dict(type='MagNetRefiner'))
LOSS = MappingProxyType(
    dict(type='WeightedCELoss', threshold=0.7, strict=True, loss_name='loss_ohem')
)


@MODELS.register_module()
class MagNet(BaseSegmentor):
    """Refines the prediction of a frozen segmentor from scale to scale, where it is uncertain.

    The segmentor sees images of ``input_size`` only: first the whole image, then patches of finer
    and finer scales. At each scale the refiner merges the segmentor's prediction of a patch with
    the prediction so far. The result replaces the prediction at the points where the result is
    certain and the prediction was not.

    Args:
        segmentor: Config of a trained segmentor with two classes or more. Its weights come from
            ``init_cfg=dict(type='Pretrained', checkpoint=...)`` in this config, or from the
            checkpoint that the training starts with (``load_from``). The segmentor is frozen, and
            its norms too.
        num_classes: Number of classes of the segmentor; None for its own.
        patch_size: Size (h, w) of a patch in pixels of its scale, and of the first scale.
        scales: Sizes (h, w) of all scales, coarse to fine. None doubles the first scale until it
            has the size of the image, for images of any size.
        input_size: Size (h, w) to which patches are resized for the networks; None for
            ``patch_size``.
        refiner: Config of the refiner.
        num_refiners: Number of refiners. A single refiner is used at all scales; otherwise scale
            s > 0 uses refiner min(num_refiners, s).
        loss_refiner: Loss on the refiner's logits (N, K, h, w) and labels (N, h, w).
        ignore_index: Label of ignored pixels.
        as_released: Whether the released code is reproduced where it differs: in training the
            inputs of the refiner are swapped, ``n_patches`` selects the *least* uncertain patches,
            steps between patches are whole pixels, and where patches overlap the last patch,
            divided by their number, counts.
        train_cfg: Not used.
        test_cfg: Settings of inference, see ``Inference``.
        data_preprocessor: Preprocessor of the model; the preprocessor of ``segmentor`` is not used.
        pretrained: Not used; the host's ``init_model`` sets it to None in every config.

    Raises:
        UserError: A single output channel, scales that do not grow from ``patch_size``, an unknown
            or impossible entry of ``test_cfg``, or a checkpoint of a refiner alone.
    """

    explains = True
    explains_pixels = False
    frozen_part = 'segmentor.'  # a training starts from weights of this part
    align_corners = False  # when the host resizes the result to the size of the file

    def __init__(
        self,
        *,
        segmentor: Mapping,
        num_classes: int | None = None,
        patch_size: Size,
        scales: Sequence[Size] | None = None,
        input_size: Size | None = None,
        refiner: Mapping = REFINER,
        num_refiners: int = 1,
        loss_refiner: Mapping = LOSS,
        ignore_index: int = 255,
        as_released: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        pretrained: None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.patch_size: Size = check_size('patch_size', patch_size)
        self.input_size: Size = check_size('input_size', input_size or patch_size)
        self.scales = None if scales is None else check_scales(scales, self.patch_size)
        if num_refiners < 1:
            raise UserError(f'num_refiners={num_refiners} leaves nothing to train: take 1 or more')
        self.inference = Inference.from_cfg(test_cfg)
        self.ignore_index = ignore_index
        self.as_released = as_released
        if num_classes is not None:
            segmentor = dict(segmentor, num_classes=num_classes)
        self.image_channels: int = segmentor.get('backbone', {}).get('in_channels', 3)
        self.segmentor: Any = MODELS.build(dict(segmentor)).requires_grad_(False).eval()
        if self.segmentor.out_channels < 2:
            raise UserError(
                'MagNet compares the two most probable classes, but the segmentor has one output '
                'channel: give it num_classes=2 and out_channels=2'
            )
        self.num_classes: int = self.segmentor.num_classes
        self.out_channels = self.num_classes
        self.refiners = ModuleList(
            MODELS.build(dict(refiner, num_classes=self.num_classes)) for _ in range(num_refiners)
        )
        self.loss_refiner: Any = MODELS.build(dict(loss_refiner))
        self._batches = PatchBatches(self.input_size)
        self._frozen = FoldedCopy()

    @property
    def label_limits(self) -> tuple[int, int]:
        """Number of classes, and the label of ignored pixels."""
        return self.num_classes, self.ignore_index

    def train(self, mode: bool = True) -> 'MagNet':
        """Sets the mode of all modules except the segmentor, which stays in evaluation mode."""
        super().train(mode)
        self.segmentor.eval()
        return self

    def sizes_of(self, image: Sequence[int]) -> list[Size]:
        """Scales (h, w) of an image of (H, W), coarse to fine."""
        if self.scales is not None:
            return self.scales
        return doubled_sizes(self.patch_size, (image[0], image[1]))

    def segment(self, patches: Tensor, corners: Sequence[Corner], size: Size) -> Tensor:
        """Probabilities (P, K, *input_size), float32 or better, from the segmentor.

        Args:
            patches: Patches (P, 3, *patch_size).
            corners: Corners of the patches.
            size: Size (h, w) of their scale.
        """
        return self._segment(patches, corners, [size] * len(corners))

    def _segment(self, patches: Tensor, corners: Sequence[Corner], sizes: Sequence[Size]) -> Tensor:
        metas = [
            patch_meta(corner, size, patch=self.patch_size, input_size=self.input_size)
            for corner, size in zip(corners, sizes, strict=True)
        ]
        patches = resize(patches, self.input_size)
        segmentor = self.segmentor
        if self.training:
            segmentor = self._frozen.of(segmentor, lambda s: s.encode_decode(patches, metas))
        return softmax(segmentor.encode_decode(patches, metas)[:, : self.num_classes])

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the refiners, each on a random patch of every image (N, 3, H, W).

        Beside the losses it returns the per cent of correct pixels in the patch: in the prediction
        of the whole image (``acc_coarse``), in the segmentor's prediction of the patch
        (``acc_fine``), and after the refiner (``acc_refined``); and the mean IoU of each, over the
        classes of the batch (``miou_coarse``, ``miou_fine``, ``miou_refined``).

        Raises:
            UserError: An image has no finer scale, or an image or a label is damaged.
        """
        check_training_batch(inputs, data_samples, self.image_channels, *self.label_limits)
        pairs = [unpad(*pair) for pair in zip(inputs, data_samples, strict=True)]
        first = [(0, 0)] * len(pairs)
        small = torch.cat([resize(image, self.patch_size) for image, _ in pairs])
        with torch.no_grad():
            coarse = self.segment(small, first, self.patch_size)
        losses: dict[str, Tensor] = {}
        for i, refiner in enumerate(self.refiners):
            samples = [self.draw_sample(*pair, i) for pair in pairs]
            with torch.no_grad():
                patches, corners, sizes, boxes, _ = zip(*samples, strict=True)
                fine = self._segment(torch.cat(patches), corners, sizes)
                context = roi_align(coarse, boxes, self.input_size)
            logits = refiner(context, fine) if self.as_released else refiner(fine, context)
            label = torch.cat([sample.label for sample in samples])
            prefix = f'refiner_{i}.' if len(self.refiners) > 1 else ''
            name = prefix + self.loss_refiner.loss_name
            losses[name] = self.loss_refiner(logits, label, ignore_index=self.ignore_index)
            for key, scores in dict(coarse=context, fine=fine, refined=logits.detach()).items():
                losses[f'{prefix}acc_{key}'] = accuracy(scores, label, self.ignore_index)
                losses[f'{prefix}miou_{key}'] = mean_iou(scores, label, self.ignore_index)
        return losses

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Loss of the refiner for a prediction (N, K, H, W), which validation reports."""
        label = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
        loss = self.loss_decode
        return {loss.loss_name: loss(seg_logits, label, ignore_index=self.ignore_index)}

    @property
    def loss_decode(self) -> Any:
        """Loss of the refiner, under the name that decode heads have for their loss."""
        return self.loss_refiner

    def draw_sample(self, image: Tensor, label: Tensor, index: int) -> Sample:
        """Sample for refiner ``index`` from an image (1, 3, H, W) with a label (H, W).

        Raises:
            UserError: The image has a single scale.
        """
        sizes = self.sizes_of(image.shape[2:])
        if len(sizes) < 2:
            raise UserError(
                f'an image of {tuple(image.shape[2:])} pixels (h, w) is no larger than patch_size='
                f'{self.patch_size}, so there is nothing to refine: take a smaller patch_size'
            )
        choices = refined_sizes(sizes, index, len(self.refiners))
        return draw_sample(
            image, label, choices, patch_size=self.patch_size, input_size=self.input_size
        )

    @torch.no_grad()
    def stages(self, image: Tensor) -> Iterator[Stage]:
        """Prediction of an image (1, 3, H, W) after each scale, coarse to fine."""
        first, *finer = self.sizes_of(image.shape[2:])[: self.inference.stages]
        stage = Stage(self.segment(resize(image, first), [(0, 0)], first))
        yield stage
        for i, size in enumerate(finer, 1):
            stage = self._refinement(i).refine(image, stage.probs, size)
            yield stage

    def _refinement(self, scale: int) -> Refinement:
        return Refinement(
            segment=self.segment,
            refiner=self.refiners[refiner_index(scale, len(self.refiners))],
            inference=self.inference,
            patch_size=self.patch_size,
            input_size=self.input_size,
            as_released=self.as_released,
            batches=self._batches,
        )

    def probabilities(self, image: Tensor) -> Tensor:
        """Probabilities (1, K, H, W) of an image (1, 3, H, W) after the last scale."""
        for stage in self.stages(image):
            probs = stage.probs
        return resize(probs, (image.shape[2], image.shape[3]))

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Images (N, 3, H, W) to the logarithms of probabilities (N, K, H, W), float32."""
        images = inputs.split(1)
        return torch.cat([self.probabilities(image).clamp_(min=1e-12).log_() for image in images])

    def extract_feat(self, inputs: Tensor) -> Any:
        """Levels of the segmentor for images (N, 3, H, W)."""
        return self.segmentor.extract_feat(inputs)

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Result of ``encode_decode``."""
        return self.encode_decode(inputs)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Data samples with ``pred_sem_seg`` and ``seg_logits`` of images (N, 3, H, W).

        An image that is cut into tiles gets no ``seg_logits``, which would need K times the memory.
        """
        check_images(inputs, self.image_channels)
        height, width = inputs.shape[2:]
        tiles = self.tiles_of((height, width))
        if len(tiles) == 1:
            logits = self.encode_decode(inputs)
            check_logits(logits)
            return self.postprocess_result(logits, data_samples)
        samples = data_samples or [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs.split(1), samples, strict=True):
            label = torch.empty(height, width, dtype=torch.int16, device=inputs.device)
            for rows, columns in tiles:
                probs = self.probabilities(image[..., rows, columns])[0]
                check_logits(probs)
                label[rows, columns] = probs.argmax(0)
            sample.set_data(dict(pred_sem_seg=PixelData(data=_as_file(label, sample)[None])))
        return samples

    def tiles_of(self, image: Size) -> list[tuple[slice, slice]]:
        """Rows and columns of the tiles in which an image of size (H, W) is predicted."""
        max_pixels = self.inference.memory_limit * MIB / 2 / bytes_per_pixel(self.num_classes)
        return tiles_of(image, max_pixels if self.scales is None else image[0] * image[1])

    @torch.no_grad()
    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Uncertainty, refined points and prediction at each scale, at the size of the scale.

        Returns:
            ``prediction_0`` (N, K, h, w): the segmentor's probabilities of the whole image. For
            each further scale s: ``uncertainty_<s>`` (N, 1, h, w) in [0, 1] before the scale,
            ``points_<s>`` (N, 1, h, w), bool, the refined points, and ``prediction_<s>``, the
            probabilities after the scale.
        """
        if pixel is not None:
            raise no_single_pixels(type(self).__name__)
        maps: dict[str, list[Tensor]] = {}
        for image in inputs.split(1):
            for s, stage in enumerate(self.stages(image)):
                for name, image_map in stage.maps().items():
                    maps.setdefault(f'{name}_{s}', []).append(image_map)
        return {name: torch.cat(image_maps) for name, image_maps in maps.items()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Also takes a checkpoint of the segmentor alone; the refiners keep their weights then."""
        names = [name for name in state_dict if name.startswith(prefix)]
        inner = f'{prefix}segmentor.'
        if names and not any(name.startswith((inner, f'{prefix}refiners.')) for name in names):
            moved = {inner + name.removeprefix(prefix): state_dict.pop(name) for name in names}
            state_dict.update(moved)
        has_segmentor = any(name.startswith(inner) for name in state_dict)
        if names and not has_segmentor and not starts_pretrained(self.segmentor):
            raise UserError(
                'the checkpoint holds a refiner without the segmentor that it was trained on: give '
                'both files to tools/convert_checkpoint.py magnet SEGMENTOR REFINER... DST'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _as_file(label: Tensor, sample: SegDataSample) -> Tensor:
    """Class indices (H, W), resized to the size of the file."""
    label = without_padding(label, padding_of(sample.metainfo))
    return nearest(label, tuple(sample.metainfo.get('ori_shape', label.shape)[:2]))
