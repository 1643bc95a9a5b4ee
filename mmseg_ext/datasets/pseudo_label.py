"""Training on labels that a trained model predicted: the reading side of auto-labelling.

Tao, Sapra, Catanzaro, "Hierarchical Multi-Scale Attention for Semantic Segmentation",
arXiv 2005.10821, section on auto-labelling. Released code: NVIDIA/semantic-segmentation
(BSD-3-Clause). ``tools/auto_label.py`` writes the labels (``inference/auto_label.py``).

Each pixel has the class of the highest probability. Pixels whose probability is below a threshold
are ignored. Differs from the released code:

- The type of the data set says that its labels are a model's. There, a word in the file's path says
  so, and without this word every step below is skipped without a message.
- Human labels need to exist only where they are merged.
- Each class may have its threshold.
"""

import json
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.registry import DATASETS, TRANSFORMS

from ..errors import UserError
from .cityscapes import LABEL_IDS, CityscapesIdsDataset
from .folder import FolderDataset
from .transforms import IGNORE_INDEX, LoadSegMap

LABELS, PROBABILITIES = 'label', 'prob'  # sub-folders that tools/auto_label.py writes
SUMMARY = 'auto_label.json'
Threshold = float | Sequence[float]  # of all classes, or of each class


def first_kept(threshold: float) -> int:
    """The lowest value of a probability PNG, floor(255 p), with v / 255 >= ``threshold``.

    Raises:
        UserError: The threshold is no probability.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f'threshold={threshold} must be a probability from 0 to 1')
    return int(np.count_nonzero(np.arange(256) / 255 < threshold))


def first_kept_of_classes(threshold: Threshold) -> np.ndarray:
    """``first_kept`` of each value of a label map, uint8 (256,).

    Raises:
        UserError: A threshold is no probability.
    """
    if isinstance(threshold, Sequence):
        limits = [first_kept(value) for value in threshold]
        return np.array(limits + [0] * (256 - len(limits)), np.uint8)
    return np.full(256, first_kept(threshold), np.uint8)


def check_number_of_thresholds(threshold: Threshold | None, number: int) -> None:
    """Checks that there is one threshold, or one for each class.

    Raises:
        UserError: There is another number of thresholds.
    """
    if isinstance(threshold, Sequence) and len(threshold) != number:
        raise UserError(
            f'threshold has {len(threshold)} values, but there are {number} classes: give one '
            'value, or one for each class'
        )


def confident_labels(
    label: np.ndarray,
    prob: np.ndarray | None,
    threshold: Threshold = 0.9,
    *,
    human: np.ndarray | None = None,
    merge: Sequence[int] = (),
) -> np.ndarray:
    """Labels of the pixels whose probability reaches the threshold; all other pixels are 255.

    If the model predicts a class of ``merge`` anywhere in the image, the pixels with this human
    label get the class too, so that it covers the union. As released, the threshold then still
    compares the probability of the class that the model predicted there. With a threshold for each
    class, it is the threshold of the class that the pixel gets.

    Args:
        label: Predicted classes, uint8 (H, W).
        prob: Probabilities of these classes as floor(255 p), uint8 (H, W); None keeps all pixels.
        threshold: Lowest p that is kept, of all classes or of each class; 0.9 in the paper, 0.5 in
            the released script.
        human: Human labels, uint8 (H, W).
        merge: Classes to merge, in ascending order.
    """
    label = label.copy()
    for c in sorted(merge):
        if human is not None and (label == c).any():
            label[human == c] = c
    if prob is not None:
        label[prob < first_kept_of_classes(threshold)[label]] = IGNORE_INDEX
    return label


@DATASETS.register_module()
class PseudoLabelDataset(FolderDataset):
    """Images with the labels that ``tools/auto_label.py`` wrote for them.

    The file ``auto_label.json`` in the folder of the labels names their classes. The pipeline has
    to read them with ``LoadPseudoLabels`` in place of ``LoadSegMap``.

    A folder without this file is read as labels in Cityscapes' label ids, the form of the labels
    that NVIDIA released. The folder has the sub-folders ``label`` and ``prob``, or holds the labels
    itself. Then the probabilities of ``a.png`` are ``a_prob.png``, or ``a.png`` in ``prob_path``.

    Args:
        data_prefix: Folders by name: ``img_path`` holds the images, ``seg_map_path`` the output of
            the tool, and ``human_path`` the human labels, if ``LoadPseudoLabels`` merges them.
            ``prob_path`` holds probabilities that lie elsewhere than beside the labels.
        data_root: Folder that the folders in ``data_prefix`` are relative to.
        human_suffix: Ending of a human label's name; it replaces ``img_suffix``. For Cityscapes
            with ``img_suffix='_leftImg8bit.png'`` it is ``'_gtCoarse_labelIds.png'``.
        seg_map_suffix: Ending of a predicted label's name, in place of ``img_suffix``; by default
            the label has the name of the image and the ending ``.png``.
        metainfo: Classes and palette; by default those of ``auto_label.json``.
        **kwargs: Arguments of ``FolderDataset``; ``label_map`` and ``reduce_zero_label`` apply to
            the human labels. By default their values mean the same as in the predicted labels.

    Raises:
        UserError: A folder or the labels in it are missing, there is no image, ``metainfo`` names
            other classes than the labels, the pipeline has no ``LoadPseudoLabels`` and would keep
            every pixel, or it has another number of thresholds than classes.
    """

    def __init__(
        self,
        *,
        data_prefix: dict[str, str],
        data_root: str | None = None,
        human_suffix: str = '.png',
        seg_map_suffix: str | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        folder = data_prefix['seg_map_path']
        files = _Files(osp.join(data_root or '', folder), kwargs.get('backend_args'))
        written = files.summary()
        metainfo = {'classes': written['classes'], 'palette': written['palette']} | (metainfo or {})
        if tuple(metainfo['classes']) != written['classes']:
            raise UserError(
                f'{folder} holds labels of {_list_classes(written["classes"])}, but metainfo has '
                f'{_list_classes(metainfo["classes"])}: use a model of the same classes'
            )
        self.prob_suffix = '.png'
        has_summary, is_nested = files.exist(SUMMARY), files.exist(LABELS)
        prob_path = data_prefix.get('prob_path')
        if has_summary or is_nested:
            data_prefix = {**data_prefix, 'seg_map_path': osp.join(folder, LABELS)}
            if written['threshold'] is None and (has_summary or files.exist(PROBABILITIES)):
                prob_path = prob_path or osp.join(folder, PROBABILITIES)
        elif prob_path is None:
            prob_path, self.prob_suffix = folder, '_prob.png'
        if prob_path is not None:
            data_prefix = {**data_prefix, 'prob_path': prob_path}
        self.label_suffix = seg_map_suffix
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
                f'{[type(t).__name__ for t in transforms]}: use it in place of LoadSegMap'
            )
        for transform in transforms:
            if isinstance(transform, LoadPseudoLabels):
                check_number_of_thresholds(transform.threshold, len(self._metainfo['classes']))

    def advice(self) -> str:
        return 'name the folders in data_prefix and their common parent in data_root'

    def load_data_list(self) -> list[dict]:
        for key in ('prob_path', 'human_path'):
            path = self.data_prefix.get(key)
            if path is not None and not fileio.exists(path, backend_args=self.backend_args):
                raise UserError(f'{path} does not exist: {self.advice()}')
        items = super().load_data_list()
        first = items[0]['seg_map_path']
        if not fileio.exists(first, backend_args=self.backend_args):
            raise UserError(
                f'{first}, the label of the first image, does not exist: set seg_map_path to the '
                'folder that tools/auto_label.py wrote, or seg_map_suffix to the ending of the '
                "labels' names"
            )
        return items

    def _item(self, stem: str, name: str, has_labels: bool) -> dict:
        item = super()._item(stem, name, has_labels)
        label, prob, human = osp.splitext(name)[0] + '.png', None, None
        if self.label_suffix is not None:
            label = stem + self.label_suffix
        if 'prob_path' in self.data_prefix:
            name_of_prob = osp.splitext(label)[0] + self.prob_suffix
            prob = osp.join(self.data_prefix['prob_path'], name_of_prob)
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


class _Files:
    """Files of a folder of labels, by their names."""

    def __init__(self, folder: str, backend_args: dict | None) -> None:
        self.folder, self.backend_args = folder, backend_args

    def exist(self, name: str = '') -> bool:
        return fileio.exists(osp.join(self.folder, name), backend_args=self.backend_args)

    def summary(self) -> dict:
        """Content of ``auto_label.json``; without this file, the form of Cityscapes' labels."""
        path = osp.join(self.folder, SUMMARY)
        if self.exist(SUMMARY):
            written = json.loads(fileio.get_text(path, backend_args=self.backend_args))
            return {**written, 'classes': tuple(written['classes'])}
        if not self.exist():
            raise UserError(
                f'{path}, which names the classes of the labels, does not exist: set seg_map_path '
                'to the folder that tools/auto_label.py wrote, or to labels of Cityscapes'
            )
        meta = CityscapesIdsDataset.METAINFO
        return dict(
            classes=tuple(meta['classes']),
            palette=meta['palette'],
            label_ids=LABEL_IDS,
            threshold=None,
        )


def _list_classes(classes: Sequence[str]) -> str:
    return f'{len(classes)} classes ({", ".join(classes[:3])}, ...)'


@TRANSFORMS.register_module()
class LoadPseudoLabels(LoadSegMap):
    """Reads the labels of a ``PseudoLabelDataset`` and ignores pixels of low probability.

    It takes three steps in this order:

    1. Ignore the pixels outside of ``valid_box``.
    2. Unite the classes of ``merge`` with the human labels, inside and outside of the box.
    3. Ignore the pixels below the threshold.

    Args:
        threshold: Lowest probability that is kept (0.9 in the paper), or a list with that of each
            class; None for labels that were thresholded when they were written. Probabilities
            depend on the model's training: the summary of ``tools/auto_label.py`` shows the effect
            of several thresholds.
        merge: Classes to unite with the human labels.
        valid_box: Box (top, left, bottom, right) as fractions of the image's height and width.
        **kwargs: Arguments of ``LoadSegMap``.

    Raises:
        UserError: The threshold or the box is out of range, or the item has no probabilities or
            human label although they are needed.
    """

    def __init__(
        self,
        threshold: Threshold | None = 0.9,
        *,
        merge: Sequence[int] = (),
        valid_box: tuple[float, float, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if threshold is not None:
            first_kept_of_classes(threshold)
        if valid_box is not None and not (
            0 <= valid_box[0] < valid_box[2] <= 1 and 0 <= valid_box[1] < valid_box[3] <= 1
        ):
            raise UserError(
                f'valid_box={valid_box} must be (top, left, bottom, right) in fractions from 0 to 1'
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
                f'{path} is no label of a PseudoLabelDataset, which LoadPseudoLabels needs: '
                'read other labels with LoadSegMap'
            )
        if self.threshold is not None and paths['prob'] is None:
            raise UserError(
                f'{path} was thresholded when it was written: set threshold=None in '
                'LoadPseudoLabels, or label the images without --threshold'
            )
        if self.merge and paths['human'] is None:
            raise UserError(
                f'{path} has no human label to merge with: set human_path in data_prefix, or '
                'remove merge'
            )
        return paths

    def _inside_box(self, label: np.ndarray) -> np.ndarray:
        if self.valid_box is None:
            return label
        (h, w), (top, left, bottom, right) = label.shape, self.valid_box
        inside = slice(round(top * h), round(bottom * h)), slice(round(left * w), round(right * w))
        masked = np.full_like(label, IGNORE_INDEX)
        masked[inside] = label[inside]
        return masked

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, threshold={self.threshold}, merge={self.merge}, '
            f'valid_box={self.valid_box})'
        )
