"""The host's visualizer, which also draws segments and objects."""

from typing import Any

import cv2
import mmcv
import numpy as np
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from .segments import Shape, draw_shapes, shapes_of_instances, shapes_of_map


@VISUALIZERS.register_module()
class SegmentsVisualizer(SegLocalVisualizer):
    """The host's ``SegLocalVisualizer``, which also draws panoptic and instance results.

    A sample with predicted segments is drawn as its label on the left and its prediction on the
    right. A sample without a prediction is drawn as its label. All other samples are drawn as the
    host draws them.
    """

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Draws a sample as the host does; see the class."""
        shapes: list[list[Shape] | None] = []
        if data_sample is not None and draw_gt:
            shapes.append(label_shapes(data_sample))
        if data_sample is not None and draw_pred and 'pred_sem_seg' in data_sample:
            shapes.append(predicted_shapes(data_sample))
        if not shapes or shapes[-1] is None:
            where = (show, wait_time, out_file, step)
            super().add_datasample(name, image, data_sample, draw_gt, draw_pred, *where, **kwargs)
            return
        meta = self.dataset_meta
        pictures = [
            draw_shapes(image, drawn, meta['classes'], meta['palette'])
            for drawn in shapes
            if drawn is not None
        ]
        picture = np.concatenate(pictures, axis=1)
        h, w = image.shape[:2]
        # ``get_image``, which ``MMSegInferencer`` calls, has the size of the image
        self.set_image(mmcv.imresize(picture, (w * len(pictures), h), interpolation='area'))
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), out_file)
        else:
            self.add_image(name, picture, step)


def label_shapes(sample: SegDataSample) -> list[Shape] | None:
    """Shapes of the label: its objects if they may overlap, else its segments; None without."""
    if 'gt_panoptic_seg' not in sample:
        return None
    if 'gt_instances' in sample:
        return shapes_of_instances(sample.gt_instances)
    return shapes_of_map(sample.gt_panoptic_seg.panoptic_seg, sample.segments_info)


def predicted_shapes(sample: SegDataSample) -> list[Shape] | None:
    """Shapes of the prediction: its segments, else its objects; None of a semantic result."""
    if 'pred_panoptic_seg' in sample:
        pred = sample.pred_panoptic_seg
        return shapes_of_map(pred.panoptic_seg, pred.segments_info)
    if 'pred_instances' in sample:
        return shapes_of_instances(sample.pred_instances)
    return None
