"""Training on labels that a trained model gave: the reading side of auto-labelling.

Tao, Sapra, Catanzaro, "Hierarchical Multi-Scale Attention for Semantic Segmentation",
arXiv 2005.10821, section on auto-labelling. Released code: NVIDIA/semantic-segmentation
(BSD-3-Clause). ``tools/auto_label.py`` writes the labels (``engine/auto_label.py``).

Each pixel has the class of the highest probability; where that is below a threshold, it is ignored.
Differs from the released code: the data set's type says that labels are a model's (there a word in
the file's path, and without it every step below is skipped in silence), and the labels that people
made need to exist only where they are asked for.
"""

import json
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.registry import DATASETS, TRANSFORMS

from ..errors import UserError
from .folder import FolderDataset
from .transforms import IGNORE_INDEX, LoadSegMap

LABELS, PROBABILITIES = 'label', 'prob'  # sub-folders of what tools/auto_label.py writes
SUMMARY = 'auto_label.json'


def first_kept(threshold: float) -> int:
    """The lowest value of a probability PNG, floor(255 p), that counts as at least ``threshold``.

    Raises:
        ValueError: The threshold is no probability.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f'threshold={threshold} must be a probability from 0 to 1')
    return int(np.count_nonzero(np.arange(256) / 255 < threshold))


def confident_labels(
    label: np.ndarray,
    prob: np.ndarray | None,
    threshold: float = 0.9,
    *,
    human: np.ndarray | None = None,
    merge: Sequence[int] = (),
) -> np.ndarray:
    """The pixels of which the model was sure; the others are 255.

    A class of ``merge`` that the model saw anywhere in the image is also set where people saw it,
    so that it covers the union of both. Such a pixel still needs the probability that the model
    gave to its own class there, as released.

    Args:
        label: Classes of the model, uint8 (H, W).
        prob: Floor(255 p) of these classes, uint8 (H, W); None keeps all pixels.
        threshold: Least p. The paper's is 0.9, the released script's 0.5.
        human: Classes that people gave, uint8 (H, W).
        merge: Classes, taken in ascending order.
    """
    label = label.copy()
    for c in sorted(merge):
        if human is not None and (label == c).any():
            label[human == c] = c
    if prob is not None:
        label[prob < first_kept(threshold)] = IGNORE_INDEX
    return label


@DATASETS.register_module()
class PseudoLabelDataset(FolderDataset):
    """Images with the labels that ``tools/auto_label.py`` wrote for them.

    The folder of the labels says which classes they have (``auto_label.json``).
    ``LoadPseudoLabels`` has to read them, in place of ``LoadSegMap``.

    Args:
        data_prefix: ``img_path``, the folder of the images; ``seg_map_path``, the folder that the
            tool wrote; and ``human_path``, the folder of the labels that people made, where
            ``LoadPseudoLabels`` shall merge both.
        human_suffix: What follows the image's name, without what ``img_suffix`` names, in the name
            of a human label: with ``img_suffix='_leftImg8bit.png'``, Cityscapes has
            ``'_gtCoarse_labelIds.png'``.
        **kwargs: As in ``FolderDataset``; ``label_map`` and ``reduce_zero_label`` are those of the
            human labels, of which the values mean by default what they mean in the model's labels.

    Raises:
        UserError: A folder or its ``auto_label.json`` is missing, or there is no image.
        ValueError: The labels have other classes than ``metainfo``, or the pipeline would keep
            every pixel, however unsure the model was.
    """

    def __init__(
        self,
        *,
        data_prefix: dict[str, str],
        data_root: str | None = None,
        human_suffix: str = '.png',
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        folder = data_prefix['seg_map_path']
        written = _read_summary(osp.join(data_root or '', folder, SUMMARY), kwargs)
        metainfo = {'classes': written['classes'], 'palette': written['palette']} | (metainfo or {})
        if tuple(metainfo['classes']) != written['classes']:
            raise UserError(
                f'{folder} holds labels of {_some(written["classes"])}, but metainfo has '
                f'{_some(metainfo["classes"])}: label the images with a model of these classes'
            )
        data_prefix = {**data_prefix, 'seg_map_path': osp.join(folder, LABELS)}
        if written['threshold'] is None:
            data_prefix['prob_path'] = osp.join(folder, PROBABILITIES)
        self.human_suffix = human_suffix
        self.ids_to_classes = dict.fromkeys(range(256), IGNORE_INDEX) | {
            value: c for c, value in enumerate(written['label_ids'])
        }
        super().__init__(data_prefix=data_prefix, data_root=data_root, metainfo=metainfo, **kwargs)
        self._check_pipeline()

    def _check_pipeline(self) -> None:
        transforms = self.pipeline.transforms
        if transforms and not any(isinstance(t, LoadPseudoLabels) for t in transforms):
            raise UserError(
                'PseudoLabelDataset needs LoadPseudoLabels in its pipeline, which has '
                f'{[type(t).__name__ for t in transforms]}: put it in the place of LoadSegMap'
            )

    def advice(self) -> str:
        return 'give the folders with data_prefix, and what they have in common with data_root.'

    def load_data_list(self) -> list[dict]:
        for key in ('prob_path', 'human_path'):
            path = self.data_prefix.get(key)
            if path is not None and not fileio.exists(path, backend_args=self.backend_args):
                raise UserError(f'{path} does not exist: {self.advice()}')
        return super().load_data_list()

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        item = super()._item(stem, name, has_labels)
        label, prob, human = osp.splitext(name)[0] + '.png', None, None
        if 'prob_path' in self.data_prefix:
            prob = osp.join(self.data_prefix['prob_path'], label)
        if 'human_path' in self.data_prefix:
            human = dict(
                seg_map_path=osp.join(self.data_prefix['human_path'], stem + self.human_suffix),
                label_map=item['label_map'] or self.ids_to_classes,
                reduce_zero_label=self.reduce_zero_label,
            )
        return {
            **item,
            'seg_map_path': osp.join(self.data_prefix['seg_map_path'], label),
            'label_map': self.ids_to_classes,
            'reduce_zero_label': False,
            'pseudo_label': dict(prob=prob, human=human),
        }


def _read_summary(path: str, kwargs: dict) -> dict:
    if not fileio.exists(path, backend_args=kwargs.get('backend_args')):
        raise UserError(
            f'{path} does not exist, which says what the labels beside it mean: name the folder '
            'that tools/auto_label.py wrote'
        )
    written = json.loads(fileio.get_text(path, backend_args=kwargs.get('backend_args')))
    return {**written, 'classes': tuple(written['classes'])}


def _some(classes: Sequence[str]) -> str:
    return f'{len(classes)} classes ({", ".join(classes[:3])}, ...)'


@TRANSFORMS.register_module()
class LoadPseudoLabels(LoadSegMap):
    """Reads the labels of a ``PseudoLabelDataset`` and ignores the pixels that are not sure enough.

    In this order: what lies outside of ``valid_box`` is ignored, the classes of ``merge`` are
    united with the human labels, which may lie outside of the box, and the threshold is applied.

    Args:
        threshold: Least probability; None for labels that were thresholded when they were written.
            The paper's is 0.9. How sure a model is depends on its training: look at what the
            summary of ``tools/auto_label.py`` says of several thresholds.
        merge: Classes of which the union with the human labels is taken.
        valid_box: (top, left, bottom, right) as shares of the image's height and width.
        **kwargs: As in ``LoadSegMap``.

    Raises:
        ValueError: The threshold is none, or the item does not have what is asked for.
    """

    def __init__(
        self,
        threshold: float | None = 0.9,
        *,
        merge: Sequence[int] = (),
        valid_box: tuple[float, float, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if threshold is not None:
            first_kept(threshold)
        if valid_box is not None and not (
            0 <= valid_box[0] < valid_box[2] <= 1 and 0 <= valid_box[1] < valid_box[3] <= 1
        ):
            raise UserError(
                f'valid_box={valid_box} must be (top, left, bottom, right) in shares from 0 to 1'
            )
        self.threshold = threshold
        self.merge = tuple(merge)
        self.valid_box = valid_box

    def _load_seg_map(self, results: dict) -> None:
        paths = self._paths(results)
        super()._load_seg_map(results)
        label = self._inside_box(results['gt_seg_map'])
        prob = human = None
        if self.threshold is not None:
            prob = self._read(paths['prob'])
            if prob.shape != label.shape:
                raise UserError(
                    f'{paths["prob"]} is {prob.shape[1]}x{prob.shape[0]} and the label '
                    f'{results["seg_map_path"]} is {label.shape[1]}x{label.shape[0]}: both must '
                    'have the same size'
                )
        if any((label == c).any() for c in self.merge):
            also = {**results, **paths['human'], 'seg_fields': []}
            super()._load_seg_map(also)
            human = also['gt_seg_map']
        results['gt_seg_map'] = confident_labels(
            label, prob, self.threshold or 0, human=human, merge=self.merge
        )

    def _paths(self, results: dict) -> dict:
        path, paths = results['seg_map_path'], results.get('pseudo_label')
        if paths is None:
            raise UserError(
                f'{path} is no label of a PseudoLabelDataset, which LoadPseudoLabels reads: '
                'LoadSegMap reads others'
            )
        if self.threshold is not None and paths['prob'] is None:
            raise UserError(
                f'{path} was thresholded when it was written: give LoadPseudoLabels threshold=None '
                'or label the images without --threshold'
            )
        if self.merge and paths['human'] is None:
            raise UserError(
                f'{path} has no human label to merge with: give data_prefix a human_path or leave '
                'merge'
            )
        return paths

    def _inside_box(self, label: np.ndarray) -> np.ndarray:
        if self.valid_box is None:
            return label
        (h, w), (top, left, bottom, right) = label.shape, self.valid_box
        inside = slice(round(top * h), round(bottom * h)), slice(round(left * w), round(right * w))
        kept = np.full_like(label, IGNORE_INDEX)
        kept[inside] = label[inside]
        return kept

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, threshold={self.threshold}, merge={self.merge}, '
            f'valid_box={self.valid_box})'
        )
