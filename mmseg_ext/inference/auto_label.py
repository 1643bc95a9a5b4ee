"""Labels from a trained model: the writing side of auto-labelling (arXiv 2005.10821).

``datasets/pseudo_label.py`` reads the labels. The files on disk are the only state of a run. Each
file is either complete or absent, and each label file holds its own statistics. So a run can be
stopped and continued, and several processes can share it without communication.
"""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmseg.models import SegTTAModel
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config.values import check_class_names
from mmseg_ext.config.walk import leaf_datasets
from mmseg_ext.datasets.pseudo_label import (
    LABELS,
    PROBABILITIES,
    Threshold,
    check_number_of_thresholds,
    first_kept_of_classes,
)
from mmseg_ext.datasets.transforms import IGNORE_INDEX
from mmseg_ext.errors import UserError
from mmseg_ext.inference.auto_label_summary import (
    STATISTICS,
    draw_some,
    start_summary,
    sum_statistics,
    write_summary,
)
from mmseg_ext.inference.predict import check_outside, find_inputs
from mmseg_ext.inference.predictor import Predictor
from mmseg_ext.inference.reliability import (
    check_comparison,
    count_hits,
    draw_reliability,
    find_true_labels,
    summarize_reliability,
)
from mmseg_ext.segmentors.protocols import HasLabelIds

# Thresholds of the summary where the reader chooses one.
REPORTED: Sequence[Threshold] = (0.5, 0.7, 0.9, 0.95)
BLOCK = 2**22  # number of logits whose exponentials are in memory at a time
WAITING = 8  # number of images that may wait to be written


def highest_probability(logits: Tensor) -> Tensor:
    """Largest softmax probability of each pixel, 1 / sum exp(z - max z).

    Args:
        logits: Logits z, (K, H, W).

    Returns:
        Probabilities (H, W) in [1 / K, 1], float32.
    """
    rows = max(BLOCK // (logits.shape[0] * logits.shape[2]), 1)
    blocks = (block.float() for block in logits.split(rows, dim=1))
    return torch.cat([1 / (z - z.amax(dim=0)).exp_().sum(dim=0) for z in blocks])


def label_and_probability(sample: SegDataSample) -> tuple[Tensor, Tensor]:
    """Predicted classes and their probabilities p as floor(255 p), both uint8 (H, W).

    As in the host, a prediction of one channel holds the probability of class 1 instead of logits.
    """
    label, scores = sample.pred_sem_seg.data[0], sample.seg_logits.data
    if len(scores) > 1:
        prob = highest_probability(scores)
    else:
        prob = torch.where(label > 0, scores[0], 1 - scores[0]).float()
    return label.to(torch.uint8), (255 * prob).to(torch.uint8)  # the conversion rounds down


def auto_label(
    config: Config,
    checkpoint: str | Path,
    images: Path,
    out: Path,
    *,
    threshold: Threshold | None = None,
    true_labels: Path | None = None,
    tta: bool = False,
    device: str = 'cpu',
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Any] | None:
    """Labels every image in a folder that has no label yet.

    The classes of ``images/a/b.jpg`` go to ``out/label/a/b.png``, as Cityscapes' labelIds if the
    test data set is ``CityscapesIdsDataset``. Their probabilities p go to ``out/prob/a/b.png`` as
    floor(255 p). ``out/auto_label.json`` names the model and its classes. After the last image it
    also holds statistics, and ``out/auto_label.png`` shows some images. Where true labels exist,
    ``out/reliability.png`` compares the probabilities with them.

    Args:
        config: Config of the experiment; its ``test_dataloader`` defines the pipeline.
        checkpoint: Checkpoint of the model.
        images: Folder of images, or an image.
        out: Output folder, new or from a stopped run.
        threshold: Lowest probability, of all classes or of each class; lower pixels become 255, and
            no probabilities are written.
        true_labels: Folder of true labels, named as in the test data set of the config; images
            without a true label are left out of the comparison.
        tta: Whether the config's ``tta_model`` predicts.
        device: Device: ``cpu``, ``cuda``, ``cuda:1``, ...
        rank: Rank of this process; it labels the images ``rank``, ``rank + world_size``, ...
        world_size: Number of processes that share the images.

    Returns:
        Content of ``auto_label.json``; None if other processes have not labelled all their images.

    Raises:
        UserError: A folder, image or checkpoint does not exist or cannot be read, the checkpoint
            is another model's, ``out`` holds files of another model, threshold or tool, or true
            labels cannot be compared.
    """
    paths = find_inputs(images)
    root = images if images.is_dir() else images.parent
    check_outside(images, out)
    thresholds = REPORTED if threshold is None else (threshold,)
    limits = [first_kept_of_classes(value) for value in thresholds]
    teacher = _Teacher(config, checkpoint, device, tta=tta)
    check_number_of_thresholds(threshold, teacher.num_classes)
    names = [path.relative_to(root).with_suffix('.png') for path in paths]
    truth: dict[Path, dict] = {}
    if true_labels is not None:
        check_comparison(threshold)
        truth = find_true_labels(config, root, true_labels, names, teacher.classes)
    written: dict[str, Any] = {**teacher.description, 'threshold': threshold}
    start_summary(out, written, rank)
    folders = [out / LABELS] + ([out / PROBABILITIES] if threshold is None else [])
    pending = [
        (path, name)
        for path, name in list(zip(paths, names, strict=True))[rank::world_size]
        if not all((folder / name).exists() for folder in folders)
    ]
    writer = _Writer(out, teacher.label_ids, limits, hard=threshold is not None)
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future] = deque()
        predictions = teacher.predict([path for path, _ in pending])
        bar = f'label (process {rank + 1} of {world_size})'
        for (_, name), arrays in zip(
            pending, track(predictions, bar, len(pending), disable=rank > 0), strict=True
        ):
            waiting.append(pool.submit(writer.write, name, *arrays))
            if len(waiting) > WAITING:
                waiting.popleft().result()
        for future in waiting:
            future.result()
    if not all((folder / name).exists() for folder in folders for name in names):
        return None
    written['images'] = len(names)
    columns = [
        'its threshold' if isinstance(value, Sequence) else str(value) for value in thresholds
    ]
    written['pixels'] = sum_statistics(out, names, written['classes'], columns)
    if truth:
        counts = count_hits(out, truth, teacher.label_ids)
        written['reliability'] = summarize_reliability(counts, teacher.classes)
        draw_reliability(out, counts, written, rank)
    write_summary(out, written, rank)
    draw_some(out, list(zip(paths, names, strict=True)), written, rank)
    return written


class _Teacher:
    """A model that predicts image files, and its description for the summary."""

    def __init__(self, config: Config, checkpoint: str | Path, device: str, *, tta: bool) -> None:
        predictor = Predictor(config, checkpoint, device)
        self.model = predictor.model
        pipeline = next(iter(leaf_datasets(config.test_dataloader)))['pipeline']
        if tta:
            self.model, pipeline = _with_tta(config, predictor.model)
        self.pipeline = Compose(_without_labels(pipeline))
        self.num_workers = config.test_dataloader.get('num_workers', 0)
        check_class_names(f'{checkpoint}: dataset_meta.classes', predictor.classes)
        self.classes = list(predictor.classes)
        self.num_classes = len(self.classes)
        self.label_ids = _label_ids(config, predictor.classes)
        self.description = dict(
            config=str(config.filename),
            checkpoint=str(checkpoint),
            checkpoint_sha256=_sha256(checkpoint),
            prediction_sha256=hashlib.sha256(
                repr((config.model, pipeline, config.get('tta_model') if tta else None)).encode()
            ).hexdigest(),
            tta=tta,
            classes=self.classes,
            palette=[list(map(int, color)) for color in predictor.palette],
            label_ids=list(self.label_ids),
        )

    @torch.no_grad()
    def predict(self, paths: Sequence[Path]) -> Any:
        """Yields (label, prob) of each image, both uint8 (H, W)."""
        loader = DataLoader(
            _Images(paths, self.pipeline), num_workers=self.num_workers, collate_fn=pseudo_collate
        )
        for batch in loader:
            (sample,) = self.model.test_step(batch)
            channels = len(sample.seg_logits.data)
            if channels != self.num_classes and (channels, self.num_classes) != (1, 2):
                raise UserError(
                    f'the model predicts {channels} classes, but its data set has '
                    f'{self.num_classes}: correct num_classes or the classes of the config'
                )
            label, prob = label_and_probability(sample)
            yield label.cpu().numpy(), prob.cpu().numpy()


class _Images(Dataset):
    def __init__(self, paths: Sequence[Path], pipeline: Compose) -> None:
        self.paths, self.pipeline = paths, pipeline

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(dict(img_path=str(self.paths[index]), seg_fields=[]))


def _with_tta(config: Config, model: torch.nn.Module) -> tuple[torch.nn.Module, list]:
    if not config.get('tta_model') or not config.get('tta_pipeline'):
        raise UserError(f'--tta: {config.filename} has no tta_model and tta_pipeline')
    augmented = MODELS.build({**config.tta_model, 'module': model})
    if isinstance(augmented, SegTTAModel):
        raise UserError(
            f'--tta: {type(augmented).__name__} returns no mean logits of its augmentations: '
            "set tta_model=dict(type='LogitTTAModel') in the config"
        )
    return augmented, config.tta_pipeline


def _without_labels(transforms: Sequence[Any]) -> list:
    """Transforms without those that load labels, also inside nested transforms."""
    selected = []
    for transform in transforms:
        if isinstance(transform, list | tuple):
            transform = _without_labels(transform)
            if not transform:
                continue
        elif issubclass(TRANSFORMS.get(transform['type']), LoadAnnotations):
            continue
        elif 'transforms' in transform:
            transform = {**transform, 'transforms': _without_labels(transform['transforms'])}
        selected.append(transform)
    return selected


def _label_ids(config: Config, classes: Sequence[str]) -> Sequence[int]:
    """Values of the classes in a label file."""
    dataset = DATASETS.get(next(iter(leaf_datasets(config.test_dataloader)))['type'])
    if len(classes) > IGNORE_INDEX:
        raise UserError(f'{len(classes)} classes: a label PNG holds {IGNORE_INDEX} at most')
    is_same = tuple(dataset.METAINFO.get('classes', ())) == tuple(classes)
    if is_same and isinstance(dataset, HasLabelIds):
        return dataset.label_ids
    return range(len(classes))


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
    return digest.hexdigest()


class _Writer:
    """Writes the files of an image; the label comes last and marks the image as done."""

    def __init__(
        self, out: Path, label_ids: Sequence[int], limits: Sequence[np.ndarray], *, hard: bool
    ) -> None:
        self.out, self.limits, self.hard = out, limits, hard
        self.num_classes = len(label_ids)
        self.ids = np.full(256, IGNORE_INDEX, np.uint8)
        self.ids[: len(label_ids)] = label_ids

    def write(self, name: Path, label: np.ndarray, prob: np.ndarray) -> None:
        joint = np.bincount(
            label.ravel().astype(np.int64) * 256 + prob.ravel(), minlength=256 * self.num_classes
        ).reshape(-1, 256)
        is_kept = np.arange(256) >= np.stack(self.limits)[:, : self.num_classes, None]
        statistics = [joint.sum(1).tolist(), *(joint * is_kept).sum(2).tolist()]
        text = PngInfo()
        text.add_text(STATISTICS, json.dumps(statistics))
        values = self.ids[label]
        if self.hard:
            values[prob < self.limits[0][label]] = IGNORE_INDEX
        else:
            write_atomically(_png(prob), self.out / PROBABILITIES / name)
        write_atomically(_png(values, pnginfo=text), self.out / LABELS / name)


def _png(array: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, 'PNG', compress_level=1, **options)
    return file.getvalue()
