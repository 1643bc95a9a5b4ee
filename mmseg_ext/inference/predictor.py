"""A trained model that predicts, explains and draws single images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.checkpoints.fit import load_and_compare, other_model, require_usable
from mmseg_ext.checkpoints.read import classes_of, read_checkpoint, state_dict_in
from mmseg_ext.config.checks import check_device
from mmseg_ext.config.walk import leaf_datasets
from mmseg_ext.datasets.transforms import read_image
from mmseg_ext.errors import UserError
from mmseg_ext.inference.explain import can_explain, can_explain_pixels, explain_batch
from mmseg_ext.layers.sizes import padding_of
from mmseg_ext.segmentors.fast import make_fast
from mmseg_ext.segmentors.protocols import Pixel, training_parts_of
from mmseg_ext.visualization.pictures import (
    Palette,
    Panel,
    class_legend,
    color_labels,
    draw_maps,
    draw_strip,
    label_panel,
)
from mmseg_ext.visualization.segments import (
    Shape,
    draw_shapes,
    shapes_of_instances,
    shapes_of_map,
)


@dataclass
class Prediction:
    """A predicted image.

    Args:
        image: Image (H, W, 3), RGB.
        label: Class indices (H, W).
        maps: Maps from ``explain``.
        pixel: Pixel that the maps explain.
        shapes: Segments of a panoptic result as ``panoptic``, objects as ``instances``.
    """

    image: np.ndarray
    label: np.ndarray
    maps: dict[str, Tensor] = field(default_factory=dict)
    pixel: Pixel | None = None
    shapes: dict[str, list[Shape]] = field(default_factory=dict)


class Predictor:
    """A trained model that predicts single images with the test pipeline of its config.

    Args:
        config: Config of the experiment; its ``test_dataloader`` defines the pipeline.
        checkpoint: Path of the checkpoint; its classes and palette are used if it holds them, else
            those of the test data set.
        device: Device: ``cpu``, ``cuda``, ``cuda:1``, ...
        explain: Whether to return the model's maps too.
        pixel: Pixel (x, y) of the image to explain, for models that explain single pixels.
        compiled: Whether ``torch.compile`` compiles the network.

    Raises:
        UserError: The checkpoint does not exist or is another model's, the device does not exist,
            or the model has no maps or cannot explain a pixel.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | Path,
        device: str,
        *,
        explain: bool = False,
        pixel: Pixel | None = None,
        compiled: bool = False,
    ) -> None:
        check_device(device)
        explain = explain or pixel is not None
        self.model, meta = load_model(config, checkpoint, explain=explain)
        self.model.to(device)
        make_fast(self.model, compiled=compiled)
        self.classes, self.palette = classes_and_palette(config, meta)
        self.model.dataset_meta = dataset_meta(config, meta)
        self.explain, self.pixel = explain, pixel
        self._check_explain()
        self._from_file, self._from_array = image_pipelines(config)

    def _check_explain(self) -> None:
        name = type(self.model).__name__
        if self.model.with_decode_head:
            name += f' with {type(self.model.decode_head).__name__}'
        if self.explain and not can_explain(self.model):
            raise UserError(f'{name} has no maps that explain its predictions: omit --explain')
        if self.pixel and not can_explain_pixels(self.model):
            raise UserError(f'{name} does not explain single pixels: omit --pixel')

    def file(self, path: Path) -> Prediction:
        """Predicts an image file.

        Raises:
            UserError: The file cannot be read, or ``pixel`` lies outside of the image.
        """
        return self._predict(
            read_image(path), self._from_file(dict(img_path=str(path), seg_fields=[]))
        )

    def frame(self, picture: np.ndarray) -> Prediction:
        """Predicts a uint8 array (H, W, 3) in BGR, as OpenCV reads it."""
        return self._predict(picture, self._from_array(dict(img=picture, seg_fields=[])))

    @torch.no_grad()
    def _predict(self, picture: np.ndarray, packed: dict[str, Any]) -> Prediction:
        data = {key: [value] for key, value in packed.items()}
        data = self.model.data_preprocessor(data, False)
        inputs, samples = data['inputs'], data['data_samples']
        result = self.model.predict(inputs, samples)[0]
        prediction = Prediction(
            image=cv2.cvtColor(picture, cv2.COLOR_BGR2RGB),
            label=result.pred_sem_seg.data[0].long().cpu().numpy(),
            pixel=self.pixel,
        )
        if 'pred_panoptic_seg' in result:
            segments = result.pred_panoptic_seg
            prediction.shapes['panoptic'] = shapes_of_map(
                segments.panoptic_seg, segments.segments_info
            )
        if 'pred_instances' in result:
            prediction.shapes['instances'] = shapes_of_instances(result.pred_instances)
        if self.explain:
            pixel = self.pixel
            if pixel is not None:
                pixel = _pixel_of_input(pixel, picture.shape, samples[0])
            prediction.maps = explain_batch(self.model, inputs, samples, pixel)[0]
        return prediction

    def draw(self, prediction: Prediction, *, all_classes: bool = False) -> dict[str, np.ndarray]:
        """Pictures by kind: ``overlay``, ``color``, ``mask`` (indices) and ``explain`` (maps).

        A result with segments also has ``panoptic``, one with objects ``instances``.
        """
        image, label = prediction.image, prediction.label
        panel = label_panel('prediction', image, label, self.palette)
        pictures = {
            'overlay': panel.picture,
            'color': color_labels(label, self.palette),
            'mask': label.astype(np.uint8 if len(self.palette) <= 256 else np.uint16),
        }
        for kind, shapes in prediction.shapes.items():
            pictures[kind] = draw_shapes(image, shapes, self.classes, self.palette)
        if self.explain:
            panels = [Panel('input', image), panel]
            panels += draw_maps(prediction.maps, image, self.palette)
            if prediction.pixel:
                panels = [_mark(panel, prediction.pixel) for panel in panels]
            legend = class_legend(panels, self.classes, self.palette)
            if all_classes:
                legend = list(zip(self.classes, self.palette, strict=True))
            pictures['explain'] = draw_strip(panels, legend)
        return pictures


def image_pipelines(config: Config) -> tuple[Compose, Compose]:
    """Transforms of the test without those of labels, for image files and for arrays."""
    transforms = Compose(_test_dataset(config)['pipeline']).transforms
    transforms = [t for t in transforms if not isinstance(t, LoadAnnotations)]
    return Compose(transforms), Compose([LoadImageFromNDArray(), *transforms[1:]])


def load_model(
    config: Config, checkpoint: str | Path | None, *, explain: bool = False
) -> tuple[BaseSegmentor, dict[str, Any]]:
    """The config's model in eval mode with the checkpoint's weights, and the checkpoint's meta.

    Without a checkpoint the weights are random, and the meta is empty. Parts that only training
    needs may differ, unless ``explain`` is set: maps are made of some of them.

    Raises:
        UserError: The checkpoint does not exist, cannot be read or used, or its names or shapes are
            another model's.
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    if checkpoint is None:
        return revert_sync_batchnorm(MODELS.build(config.model)).eval(), {}
    if not Path(checkpoint).is_file():
        raise UserError(f'the checkpoint {checkpoint} does not exist')
    loaded = read_checkpoint(str(checkpoint))
    model = revert_sync_batchnorm(MODELS.build(config.model))
    fit = load_and_compare(model, state_dict_in(str(checkpoint), loaded))
    require_usable(checkpoint, fit)
    differences = fit.without(training_parts_of(model))
    if str(differences):
        raise UserError(other_model(checkpoint, model, differences))
    if explain and (fit.missing or fit.other_shape):
        raise UserError(
            f'{checkpoint} lacks weights that the maps of --explain may need ({fit}): omit '
            '--explain, or give a checkpoint of a training'
        )
    names = classes_of(loaded)
    if names and isinstance(model, EncoderDecoder) and len(names) != model.num_classes:
        raise UserError(
            f'{checkpoint}: the model predicts {model.num_classes} classes, but its data set has '
            f'{len(names)} ({", ".join(map(str, names[:3]))}, ...): give another checkpoint'
        )
    return model.eval(), loaded.get('meta') or {}


def _test_dataset(config: Config) -> dict[str, Any]:
    return next(iter(leaf_datasets(config.test_dataloader)))


def dataset_meta(config: Config, meta: dict[str, Any]) -> dict[str, Any]:
    """Metainfo of the data: that of a checkpoint's meta, else that of the test data set.

    ``thing_classes`` of the test data set are used where a checkpoint of its classes has none.
    """
    dataset = _test_dataset(config)
    described = {**DATASETS.get(dataset['type']).METAINFO, **dataset.get('metainfo', {})}
    trained = meta.get('dataset_meta') or {}
    if not trained.get('classes'):
        return described
    is_same = list(trained['classes']) == list(described.get('classes') or ())
    things = {'thing_classes': described.get('thing_classes') or ()} if is_same else {}
    return {**things, **trained}


def classes_and_palette(config: Config, meta: dict[str, Any]) -> tuple[Sequence[str], Palette]:
    """Names and colours of the classes: those of a checkpoint's meta, else of the test data set."""
    meta = dataset_meta(config, meta)
    classes = meta['classes']
    # Without a palette of all classes: the random colours that the host uses for such a data set.
    random = np.random.RandomState(42).randint(0, 255, size=(len(classes), 3)).tolist()
    palette = meta.get('palette') or ()
    if not _is_palette(palette, len(classes)):
        return classes, random
    return classes, list(palette)[: len(classes)]


def _is_palette(palette: Any, length: int) -> bool:
    """Whether a value of a checkpoint or config has ``length`` RGB colours or more."""
    if not isinstance(palette, list | tuple) or len(palette) < length:
        return False
    is_list = all(isinstance(color, list | tuple) and len(color) == 3 for color in palette)
    return is_list and all(value in range(256) for color in palette for value in color)


def _pixel_of_input(pixel: Pixel, shape: Sequence[int], sample: SegDataSample) -> Pixel:
    """Position of a pixel of the image in the model's input, which is resized and padded."""
    (x, y), (height, width) = pixel, shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'pixel {x} {y} lies outside of the image, {width} wide and {height} high')
    left, _, top, _ = padding_of(sample.metainfo)
    image_height, image_width = sample.img_shape[:2]
    return left + x * image_width // width, top + y * image_height // height


def _mark(panel: Panel, pixel: Pixel) -> Panel:
    """Draws a white cross with a black border at a pixel of the image; tables are unchanged."""
    if not panel.over_image:
        return panel
    marked = panel.picture.copy()
    size = max(10, marked.shape[1] // 40)
    for color, thickness in ((0, 0, 0), 3), ((255, 255, 255), 1):
        cv2.drawMarker(marked, pixel, color, cv2.MARKER_CROSS, size, thickness)
    return replace(panel, picture=marked)
