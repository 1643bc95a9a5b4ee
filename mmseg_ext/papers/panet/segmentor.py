"""PANet's segmentor: instances, and the semantic result that they make."""

from collections.abc import Mapping
from typing import Any

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.segmentors.windowed import WindowedEncoderDecoder

from ...errors import UserError
from ...layers.sizes import size_of
from ...segmentors.batches import check_images
from ...segmentors.scores import as_logits
from .head import PANetInstanceHead
from .instances import as_instance_data, file_size, semantic_scores, windows_of
from .settings import Inference, Training, read_settings


@MODELS.register_module()
class PANetInstanceSegmentor(WindowedEncoderDecoder):
    """Any backbone with a neck and ``PANetInstanceHead``.

    It gives ``pred_instances`` of the image file, and the semantic result, ``pred_sem_seg`` and
    ``seg_logits``: at each pixel the largest product of score and mask of the instances of a class.
    There is no background: a pixel without instances has the first class. In ``slide`` mode there
    is the semantic result only.

    Args:
        decode_head: Config of the head, ``dict(type='PANetInstanceHead', ...)``. Another head works
            too; it gives the semantic result only.
        train_cfg: Settings of training, see ``settings.Training``.
        test_cfg: ``mode`` and the keys of ``settings.Inference``.
        **kwargs: Arguments of ``WindowedEncoderDecoder``.

    Raises:
        UserError: A setting is unknown or not positive, or ``slide`` mode has a single class.
    """

    def __init__(
        self, *, train_cfg: dict | None = None, test_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        super().__init__(train_cfg=train_cfg, test_cfg=test_cfg, **kwargs)
        if isinstance(self.decode_head, PANetInstanceHead):
            read_settings(Training, train_cfg, 'train_cfg')
            read_settings(Inference, test_cfg, 'test_cfg')
            if (test_cfg or {}).get('mode') == 'slide' and self.num_classes == 1:
                raise UserError(
                    "test_cfg mode='slide' gives the semantic result only, which a single class "
                    "does not have: choose mode='whole'"
                )

    @property
    def dataset_meta(self) -> Mapping[str, Any]:
        """Names of the classes, as data sets declare them."""
        return getattr(self.decode_head, 'dataset_meta', {})

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        self.decode_head.dataset_meta = meta or {}

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Data samples with the instances of images (N, C, H, W), and their semantic result."""
        is_whole = (self.test_cfg or {}).get('mode', 'whole') == 'whole'
        if not (is_whole and isinstance(self.decode_head, PANetInstanceHead)):
            return super().predict(inputs, data_samples)
        check_images(inputs, self.image_channels)
        settings = read_settings(Inference, self.test_cfg, 'test_cfg')
        samples = data_samples or [SegDataSample() for _ in inputs]
        metas = [sample.metainfo for sample in samples]
        size = size_of(inputs)
        windows = windows_of(metas, size)
        results = self.decode_head.detect(self.extract_feat(inputs), windows, settings)
        for sample, meta, detections in zip(samples, metas, results, strict=True):
            in_file, file = detections.moved(meta, size), file_size(meta, inputs)
            logits = as_logits(semantic_scores(in_file, self.num_classes, file))
            sample.set_data(
                dict(
                    seg_logits=PixelData(data=logits),
                    pred_sem_seg=PixelData(data=logits.argmax(0, keepdim=True)),
                    pred_instances=as_instance_data(in_file, file, settings.mask_threshold),
                )
            )
        return samples
