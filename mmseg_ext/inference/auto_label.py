"""Labels from a trained model: the writing side of auto-labelling (arXiv 2005.10821).

``datasets/pseudo_label.py`` reads the labels. The files on disk are the only state of a run. Each
file is either complete or absent, and each label file holds its own statistics. So a run can be
stopped and continued, and several processes can share it without communication.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
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
from rich import box
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config.checks import make_writable
from mmseg_ext.config.values import check_class_names
from mmseg_ext.config.walk import leaf_datasets
from mmseg_ext.datasets.pseudo_label import LABELS, PROBABILITIES, SUMMARY, first_kept
from mmseg_ext.datasets.transforms import IGNORE_INDEX, read_image
from mmseg_ext.errors import UserError
from mmseg_ext.inference.predict import check_outside, find_inputs
from mmseg_ext.inference.predictor import Predictor
from mmseg_ext.segmentors.protocols import HasLabelIds
from mmseg_ext.visualization.pictures import (
    Panel,
    class_legend,
    draw_maps,
    draw_strip,
    label_panel,
    write_picture,
)

REPORTED = (0.5, 0.7, 0.9, 0.95)  # thresholds of the summary where the reader chooses one
STATISTICS = 'auto_label'  # key of the text in a label PNG: pixels per class, all and kept
BLOCK = 2**22  # number of logits whose exponentials are in memory at a time
WAITING = 8  # number of images that may wait to be written
PICTURE, DRAWN = 'auto_label.png', 4  # file, and number of images in it


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
    threshold: float | None = None,
    tta: bool = False,
    device: str = 'cpu',
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Any] | None:
    """Labels every image in a folder that has no label yet.

    The classes of ``images/a/b.jpg`` go to ``out/label/a/b.png``, as Cityscapes' labelIds if the
    test data set is ``CityscapesIdsDataset``. Their probabilities p go to ``out/prob/a/b.png`` as
    floor(255 p). ``out/auto_label.json`` names the model and its classes. After the last image it
    also holds statistics, and ``out/auto_label.png`` shows some images.

    Args:
        config: Config of the experiment; its ``test_dataloader`` defines the pipeline.
        checkpoint: Checkpoint of the model.
        images: Folder of images, or an image.
        out: Output folder, new or from a stopped run.
        threshold: Lowest probability; lower pixels become 255, and no probabilities are written.
        tta: Whether the config's ``tta_model`` predicts.
        device: Device: ``cpu``, ``cuda``, ``cuda:1``, ...
        rank: Rank of this process; it labels the images ``rank``, ``rank + world_size``, ...
        world_size: Number of processes that share the images.

    Returns:
        Content of ``auto_label.json``; None if other processes have not labelled all their images.

    Raises:
        UserError: A folder, image or checkpoint does not exist or cannot be read, the checkpoint
            is another model's, or ``out`` holds files of another model, threshold or tool.
    """
    paths = find_inputs(images)
    root = images if images.is_dir() else images.parent
    check_outside(images, out)
    thresholds = REPORTED if threshold is None else (threshold,)
    limits = [first_kept(t) for t in thresholds]
    teacher = _Teacher(config, checkpoint, device, tta=tta)
    written: dict[str, Any] = {**teacher.description, 'threshold': threshold}
    _start(out, written, rank)

    names = [path.relative_to(root).with_suffix('.png') for path in paths]
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
    written['pixels'] = _sum_of_statistics(out, names, written['classes'], thresholds)
    _write_summary(out, written, rank)
    _draw_some(out, list(zip(paths, names, strict=True)), written, rank)
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
        self.num_classes = len(predictor.classes)
        self.label_ids = _label_ids(config, predictor.classes)
        self.description = dict(
            config=str(config.filename),
            checkpoint=str(checkpoint),
            checkpoint_sha256=_sha256(checkpoint),
            prediction_sha256=hashlib.sha256(
                repr((config.model, pipeline, config.get('tta_model') if tta else None)).encode()
            ).hexdigest(),
            tta=tta,
            classes=list(predictor.classes),
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


def _start(out: Path, written: dict[str, Any], rank: int) -> None:
    """Writes the summary into a new folder; refuses a folder of another model or tool."""
    make_writable(out)
    has_labels = (out / LABELS).exists()  # read first: another process may write the summary now
    if not (out / SUMMARY).exists():
        if has_labels:
            raise UserError(
                f'{out / LABELS} exists without {SUMMARY}, so another tool made its labels: '
                'name another folder'
            )
        _write_summary(out, written, rank)
        return
    before = json.loads((out / SUMMARY).read_text())
    for key in ('checkpoint_sha256', 'prediction_sha256', 'threshold', 'classes', 'label_ids'):
        if before.get(key) != written[key]:
            raise UserError(
                f'{out} holds labels made with another {key} ({_short(before.get(key))}, now '
                f'{_short(written[key])}; see {SUMMARY}): name another folder'
            )


def _short(value: Any) -> str:
    return str(value)[:12]


def _write_summary(out: Path, written: dict[str, Any], rank: int) -> None:
    path = out / f'{SUMMARY}.{rank}'  # a file per process: several may write at the same time
    write_atomically(json.dumps(written, indent=1).encode(), path)
    os.replace(path, out / SUMMARY)


class _Writer:
    """Writes the files of an image; the label comes last and marks the image as done."""

    def __init__(
        self, out: Path, label_ids: Sequence[int], limits: Sequence[int], *, hard: bool
    ) -> None:
        self.out, self.limits, self.hard = out, limits, hard
        self.num_classes = len(label_ids)
        self.ids = np.full(256, IGNORE_INDEX, np.uint8)
        self.ids[: len(label_ids)] = label_ids

    def write(self, name: Path, label: np.ndarray, prob: np.ndarray) -> None:
        joint = np.bincount(
            label.ravel().astype(np.int64) * 256 + prob.ravel(), minlength=256 * self.num_classes
        ).reshape(-1, 256)
        statistics = [joint.sum(1).tolist(), *(joint[:, n:].sum(1).tolist() for n in self.limits)]
        text = PngInfo()
        text.add_text(STATISTICS, json.dumps(statistics))
        values = self.ids[label]
        if self.hard:
            values[prob < self.limits[0]] = IGNORE_INDEX
        else:
            write_atomically(_png(prob), self.out / PROBABILITIES / name)
        write_atomically(_png(values, pnginfo=text), self.out / LABELS / name)


def _png(array: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, 'PNG', compress_level=1, **options)
    return file.getvalue()


def _sum_of_statistics(
    out: Path, names: Sequence[Path], classes: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """Number of labelled pixels, and of pixels above each threshold, by class over all images."""
    total = np.zeros((1 + len(thresholds), len(classes)), np.int64)
    for name in names:
        with Image.open(out / LABELS / name) as label:  # reads the text without the pixels
            text = label.info.get(STATISTICS)
        if text is None:
            raise UserError(f'{out / LABELS / name} is no label of this tool: remove it')
        total += json.loads(text)
    return {
        name: dict(
            labelled=int(count),
            kept={str(t): int(k) for t, k in zip(thresholds, above, strict=True)},
            kept_fraction={
                str(t): round(int(k) / max(int(count), 1), 6)
                for t, k in zip(thresholds, above, strict=True)
            },
        )
        for name, (count, *above) in zip(classes, total.T, strict=True)
    }


def _draw_some(
    out: Path, files: Sequence[tuple[Path, Path]], written: dict[str, Any], rank: int
) -> None:
    """Writes a picture of some images with their labels and, if they exist, probabilities."""
    classes, palette = written['classes'], written['palette']
    of_id = np.full(256, IGNORE_INDEX)
    of_id[written['label_ids']] = range(len(classes))
    panels: list[Panel] = []
    for i in np.linspace(0, len(files) - 1, min(DRAWN, len(files))).round().astype(int):
        path, name = files[i]
        image = read_image(path)[..., ::-1].copy()
        label = of_id[np.asarray(Image.open(out / LABELS / name))]
        row = [Panel(str(name.with_suffix(path.suffix)), image)]
        row.append(label_panel('label', image, label, palette))
        if written['threshold'] is None:
            prob = torch.from_numpy(np.array(Image.open(out / PROBABILITIES / name))) / 255
            row += draw_maps({'probability': prob[None]}, image, palette)
        size = panels[0].picture.shape[1::-1] if panels else image.shape[1::-1]
        panels += [replace(panel, picture=cv2.resize(panel.picture, size)) for panel in row]
    strip = draw_strip(panels, class_legend(panels, classes, palette), columns=len(row))
    path_of_rank = out / f'{rank}.{PICTURE}'  # as for the summary
    write_picture(path_of_rank, strip)
    os.replace(path_of_rank, out / PICTURE)


def summary_table(written: dict[str, Any]) -> Table:
    """Table of ``auto_label``'s result: pixels of each class, and the per cent above thresholds."""
    pixels = written['pixels']
    thresholds = list(next(iter(pixels.values()))['kept'])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('class\n', no_wrap=True)
    for head in ('pixels\nlabelled', '% of\nall', *(f'% kept\nat {t}' for t in thresholds)):
        table.add_column(head, justify='right', no_wrap=True)
    everything = sum(row['labelled'] for row in pixels.values())
    for name, row in pixels.items():
        shares = [
            f'{100 * row["kept_fraction"][t]:.1f}' if row['labelled'] else '-' for t in thresholds
        ]
        share = f'{100 * row["labelled"] / everything:.2f}'
        table.add_row(name, f'{row["labelled"]:,}', share, *shares)
    kept_pixels = [sum(row['kept'][t] for row in pixels.values()) for t in thresholds]
    table.add_section()
    table.add_row(
        'all', f'{everything:,}', '100.00', *(f'{100 * k / everything:.1f}' for k in kept_pixels)
    )
    return table
