"""OneFormer's segmentor: semantic, instance and panoptic results of one network."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder

from ...errors import UserError
from ...layers.levels import resize
from ...layers.sizes import padding_of, size_of, without_padding
from ...segmentors.batches import check_images, check_logits
from ...segmentors.scores import as_logits
from .decoder import Decoded, mask_logits
from .head import OneFormerHead
from .inference import Settings, instances, panoptic_segments, semantic_scores
from .text import check_task


@MODELS.register_module()
class OneFormer(WindowedEncoderDecoder):
    """Any backbone with ``OneFormerHead``, which is told the task in a sentence.

    ``test_cfg=dict(mode='whole', task='semantic')`` has the further keys of
    ``inference.Settings``. Every task gives the semantic result, ``pred_sem_seg`` and
    ``seg_logits``, which are the logarithms of the scores. The tasks 'instance' and 'panoptic' give
    ``pred_instances``, ``pred_panoptic_seg`` and ``segments_info`` too. In ``slide`` mode there is
    the semantic result only.

    Args:
        decode_head: Config of the head, ``dict(type='OneFormerHead', ...)``. Another head works
            too; it gives the semantic result for every task.
        **kwargs: Arguments of ``WindowedEncoderDecoder``.

    Raises:
        UserError: The task is unknown, or it is not 'semantic' in ``slide`` mode.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_task()

    @property
    def settings(self) -> Settings:
        """Settings of ``test_cfg``."""
        return Settings(**{k: v for k, v in (self.test_cfg or {}).items() if k in Settings._fields})

    def _check_task(self) -> str:
        task = check_task(self.settings.task)
        is_slide = (self.test_cfg or {}).get('mode') == 'slide'
        if task != 'semantic' and is_slide and isinstance(self.decode_head, OneFormerHead):
            raise UserError(
                f"test_cfg mode='slide' has the task semantic only, got {task}: choose mode='whole'"
            )
        return task

    @property
    def dataset_meta(self) -> Mapping[str, Any]:
        """Names of the classes, and which of them are things, as data sets declare them."""
        return getattr(self.decode_head, 'dataset_meta', {})

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        self.decode_head.dataset_meta = meta or {}

    def side_inputs(self, inputs: Tensor, samples_or_metas: Sequence | None) -> dict[str, Any]:
        """The task, for ``OneFormerHead``; else as the parent's method."""
        if isinstance(self.decode_head, OneFormerHead):
            return dict(task=self.settings.task)
        return super().side_inputs(inputs, samples_or_metas)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logarithms of the scores, (N, K, H, W), at the size of the input."""
        scores = super().inference(inputs, batch_img_metas)
        return as_logits(scores) if isinstance(self.decode_head, OneFormerHead) else scores

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Data samples with the results of the task for images (N, C, H, W)."""
        task = self._check_task()
        is_whole = (self.test_cfg or {}).get('mode', 'whole') == 'whole'
        if not (is_whole and isinstance(self.decode_head, OneFormerHead)):
            return super().predict(inputs, data_samples)
        check_images(inputs, self.image_channels)
        decoded = self.decode_head.run(self.extract_feat(inputs), [task] * len(inputs))
        samples = data_samples or [SegDataSample() for _ in inputs]
        for i, sample in enumerate(samples):
            self._add_results(sample, decoded, i, inputs)
        return samples

    def _add_results(
        self, sample: SegDataSample, decoded: Decoded, image: int, inputs: Tensor
    ) -> None:
        """Stores the results of an image of the batch in its sample."""
        settings, things = self.settings, self.decode_head.things
        prediction, meta = decoded.predictions[-1], sample.metainfo
        features = decoded.mask_features[image : image + 1]
        logits = prediction.logits[image].float()

        def masks_of(queries: Tensor) -> Tensor:
            masks = mask_logits(prediction.embedding[image : image + 1, queries], features)
            return as_file(masks.float(), size_of(inputs), meta)[0]

        h, w = meta.get('ori_shape', size_of(inputs))[:2]
        scores = semantic_scores(logits, masks_of, (h, w))
        check_logits(scores)
        seg_logits = as_logits(scores)
        sample.set_data(
            dict(
                seg_logits=PixelData(data=seg_logits),
                pred_sem_seg=PixelData(data=seg_logits.argmax(0, keepdim=True)),
            )
        )
        if settings.task == 'semantic':
            return
        ids, segments = panoptic_segments(logits, masks_of, (h, w), things, settings)
        sample.set_data(
            dict(
                pred_panoptic_seg=PixelData(panoptic_seg=ids[None]),
                pred_instances=instances(logits, masks_of, (h, w), things, settings),
            )
        )
        sample.pred_panoptic_seg.set_metainfo(
            dict(segments_info=[segment._asdict() for segment in segments])
        )


def as_file(masks: Tensor, size: tuple[int, int], meta: Mapping[str, Any]) -> Tensor:
    """Mask logits (1, M, h, w) at the size of the image file, turned as it is.

    They are resized to the input, whose padding is cut off, and then to the file, as released.

    Args:
        masks: Mask logits at stride 4.
        size: Size (H, W) of the input.
        meta: Meta of the image.
    """
    masks = without_padding(resize(masks, size, False), padding_of(meta))
    if meta.get('flip'):
        masks = masks.flip(3 if meta.get('flip_direction') == 'horizontal' else 2)
    h, w = meta.get('ori_shape', size_of(masks))[:2]
    return resize(masks, (h, w), False)
