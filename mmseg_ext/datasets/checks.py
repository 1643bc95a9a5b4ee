"""Checks of a data set before training, which read its files as the data set itself does."""

import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations as AnyLoadAnnotations
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..config.walk import leaf_datasets, nested_dicts
from ..errors import UserError
from .folder import FolderDataset
from .transforms import IGNORE_INDEX, LoadSegMap

FEW = 64  # so many files are read faster in this process than by starting others
TURNED = (5, 6, 7, 8)  # EXIF orientations with which an image is turned by 90 degrees when loaded


@dataclass
class SplitReport:
    """What was found in one split of K classes; histograms count the labels after ``label_map``."""

    classes: tuple[str, ...]
    images: int = 0
    labels_read: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)  # (width, height) of an image -> how many
    ignored: int = 0  # pixels

    def __post_init__(self) -> None:
        self.pixels = np.zeros(len(self.classes), np.int64)
        self.images_with = np.zeros_like(self.pixels)
        self.pixels_around = np.zeros_like(self.pixels)  # valid pixels of the images with the class

    def add_label(self, counts: np.ndarray, ignored: int) -> None:
        """Adds one label's pixels per class, (K,)."""
        shown = counts > 0
        self.labels_read += 1
        self.ignored += ignored
        self.pixels += counts
        self.images_with += shown
        self.pixels_around += shown * counts.sum()

    def constant_prediction(self) -> tuple[str, float]:
        """The class that is best predicted everywhere, and the mIoU in percent of doing so.

        Its IoU is its share of the valid pixels, that of the other classes is 0; as in the metric,
        classes that never occur do not count.
        """
        share = self.pixels.max() / max(self.pixels.sum(), 1)
        miou = 100 * share / max((self.pixels > 0).sum(), 1)
        return self.classes[int(self.pixels.argmax())], float(miou)

    def class_weights(self) -> list[float]:
        """Median frequency balancing (Eigen and Fergus, ICCV 2015), (K,); 1 for a class never seen.

        A class's frequency is its share of the valid pixels of the images that show it; its weight
        is the median of all frequencies over its own.
        """
        seen = self.pixels > 0
        frequency = self.pixels[seen] / self.pixels_around[seen]
        weights = np.ones(len(self.pixels))
        weights[seen] = np.median(frequency) / frequency if seen.any() else 1
        return [round(float(weight), 4) for weight in weights]

    def show(self, split: str, console: Console) -> None:
        """Prints everything; class weights for the training split only, where they are used."""
        sizes = [f'{w}x{h} ({count})' for (w, h), count in self.sizes.most_common(4)]
        more = f' and {len(self.sizes) - 4} more sizes' if len(self.sizes) > 4 else ''
        console.print(f'{split}: {self.images} images; {", ".join(sizes)}{more}', style='bold')
        if self.labels_read:
            console.print(self._table())
            name, miou = self.constant_prediction()
            console.print(f'best constant prediction: {name} everywhere, mIoU {miou:.2f}')
        if self.labels_read and split == 'train':
            console.print('for loss_decode, median frequency balancing:')
            console.print(f'class_weight={self.class_weights()}')
        for warning in self.warnings:
            console.print(f'warning: {warning}', style='yellow')
        for problem in self.problems:
            console.print(f'problem: {problem}', style='red')

    def _table(self) -> Table:
        table = Table('class')
        for header in ('pixels', '% of valid', 'images'):
            table.add_column(header, justify='right')
        valid = max(int(self.pixels.sum()), 1)
        for name, pixels, images in zip(self.classes, self.pixels, self.images_with, strict=True):
            table.add_row(name, f'{pixels:,}', f'{100 * pixels / valid:.2f}', f'{images:,}')
        table.add_row('(ignored)', f'{self.ignored:,}', '', '', style='dim')
        return table


def check_splits(
    cfg: dict[str, Any], splits: Sequence[str] = ('train', 'val', 'test'), **how: Any
) -> Iterator[tuple[str, SplitReport]]:
    """Checks the data sets of a whole config one by one, against the classes of its model too.

    Args:
        cfg: With ``model`` and dataloaders.
        splits: Those to check; one that reads the same as an earlier one is left out.
        **how: As in ``check_split``.
    """
    seen: list[dict] = []
    for split in splits:
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        if dataset is None or dataset in seen:
            continue
        seen.append(dataset)
        report = check_split(dataset, **how)
        report.problems += _check_class_counts(cfg['model'], report.classes)
        yield split, report


def check_split(
    dataset: dict, *, max_labels: int | None = None, decode_images: bool = False, progress: str = ''
) -> SplitReport:
    """Reads the headers of all files of a data set and the values of its labels.

    Args:
        dataset: Config, wrapped as deep as it may be.
        max_labels: So many labels, evenly spaced, are read (16-bit labels always); None for all.
        decode_images: Also decode every image, which finds damaged ones.
        progress: What to write beside the progress bar; no bar if empty.

    Raises:
        UserError: a folder or list of the data set is missing, or holds no image.
        ValueError: the data set has no class names.
    """
    leaves = leaf_datasets(dataset)
    known = [leaf for leaf in leaves if issubclass(DATASETS.get(leaf['type']), BaseSegDataset)]
    built = [_build(leaf) for leaf in known]
    report = SplitReport(tuple(built[0].metainfo['classes']) if built else ())
    report.warnings += [
        f'{leaf["type"]} is not a BaseSegDataset: its files are not checked'
        for leaf in leaves
        if leaf not in known
    ]
    for leaf, data in zip(known, built, strict=True):
        if tuple(data.metainfo['classes']) != report.classes:
            raise UserError(
                f'the data sets of one split must have the same classes: {known[0]["type"]} has '
                f'{len(report.classes)}, {leaf["type"]} other {len(data.metainfo["classes"])}'
            )
        check = _PairCheck(
            loader=_label_loader(leaf, dataset),
            num_classes=len(report.classes),
            ignore_index=data.ignore_index,
            decode_images=decode_images,
        )
        _check_files(report, data, check, max_labels, progress)
    _check_histogram(report)
    return report


def _check_class_counts(model: Any, classes: tuple[str, ...]) -> list[str]:
    """A sentence for every head in a model's config whose ``num_classes`` is not the data's."""
    problems = []
    for path, node in nested_dicts(model):
        names = [part for part in path.split('.') if not part.isdigit()]
        count = node.get('num_classes', len(classes))
        if classes and count != len(classes) and 'head' in names[-1]:
            problems.append(
                f'model.{path}.num_classes={count}, but the data set has {len(classes)} classes '
                f'({", ".join(classes[:3])}, ...): set it to {len(classes)}'
            )
    return problems


def _build(leaf: dict) -> BaseSegDataset:
    """The data set without its pipeline; the folders of the host's are looked at first."""
    if not issubclass(DATASETS.get(leaf['type']), FolderDataset):
        _check_folders(leaf)
    # Serialising an empty list fails in the host.
    data = DATASETS.build({**leaf, 'pipeline': [], 'serialize_data': False})
    if len(data) == 0:
        folder = data.data_prefix.get('img_path')
        raise UserError(
            f'{leaf["type"]} finds no image ending in {data.img_suffix} under {folder}, which '
            f'holds {_suffixes(folder)}: correct --data-root, data_prefix or img_suffix'
        )
    if not data.metainfo.get('classes'):
        raise UserError(
            f"{leaf['type']} has no class names: add metainfo=dict(classes=('...', '...')) to it"
        )
    return data


def _check_folders(leaf: dict) -> None:
    root = leaf.get('data_root') or ''
    parts = [*(leaf.get('data_prefix') or {}).values(), leaf.get('ann_file')]
    for path in (Path(root), *(Path(root, part) for part in parts if part)):
        if '://' not in str(root) and not path.exists():
            raise UserError(
                f'{path}, which {leaf["type"]} reads, does not exist: put the data there or name '
                'its folder with --data-root'
            )


def _suffixes(folder: Any) -> str:
    """What a folder holds, by suffix: '367 .png, 2 .txt' or 'no file'."""
    found = Counter(path.suffix or 'without suffix' for path in Path(folder).rglob('*.*'))
    return ', '.join(f'{n} {suffix}' for suffix, n in found.most_common(3)) or 'no file'


def _label_loader(leaf: dict, dataset: dict) -> AnyLoadAnnotations:
    """The transform with which training reads labels: the first of its kind in the pipelines."""
    for _, node in (*nested_dicts(leaf), *nested_dicts(dataset)):
        cls = TRANSFORMS.get(node['type']) if isinstance(node.get('type'), str) else None
        if cls is LoadAnnotations:
            break  # ours reads the same, and says what is wrong
        if inspect.isclass(cls) and issubclass(cls, AnyLoadAnnotations):
            return TRANSFORMS.build(node)
    return LoadSegMap()


@dataclass
class _PairCheck:
    """Checks one image and its label; an object, so that it can be sent to other processes."""

    loader: AnyLoadAnnotations
    num_classes: int
    ignore_index: int
    decode_images: bool

    def __call__(self, job: tuple[dict, bool]) -> dict:
        """(what the data set knows of the pair, whether to read the label) to what was found."""
        info, read_label = job
        found: dict = {'problems': []}
        try:
            found['size'] = self._image_size(info['img_path'])
            if info.get('seg_map_path') is not None:
                found['label'] = self._label(info, found['size'], read_label)
        except _Problem as problem:
            found['problems'].append(str(problem))
        return found

    def _image_size(self, path: str) -> tuple[int, int] | None:
        """(width, height) as loaded; None for a format that only the pipeline knows."""
        try:
            with Image.open(path) as image:
                if self.decode_images:
                    image.load()
                photo = image.format in ('JPEG', 'MPO')  # asking a PNG would decode it
                turned = photo and image.getexif().get(0x0112) in TURNED
                return (image.height, image.width) if turned else image.size
        except FileNotFoundError:
            raise _Problem(f'{path}: the image does not exist: restore it') from None
        except (OSError, SyntaxError) as error:  # PIL's words for a damaged file
            if Path(path).suffix.lower() in Image.registered_extensions():
                reason = str(error).partition(' image file ')[0]  # PIL repeats the path
                raise _Problem(
                    f'{path}: the image cannot be read ({reason}): restore or remove it'
                ) from error
            return None

    def _label(
        self, info: dict, image_size: tuple[int, int] | None, read: bool
    ) -> tuple[np.ndarray, int] | None:
        """Pixels of each class and ignored pixels; None for a label that need not be read."""
        path = info['seg_map_path']
        try:
            with Image.open(path) as header:
                size, mode, bands = header.size, header.mode, len(header.getbands())
        except FileNotFoundError:
            raise _Problem(
                f'{info["img_path"]}: its label {path} does not exist: add it or remove the image'
            ) from None
        except UnidentifiedImageError:
            return self._count(info)
        if image_size and size != image_size:
            raise _Problem(
                f'{path}: the label has {size[0]}x{size[1]} pixels, '
                f'its image {image_size[0]}x{image_size[1]}: give both one size'
            )
        if bands > 1 and isinstance(self.loader, LoadSegMap):
            raise _Problem(
                f'{path}: the label has {bands} channels ({mode}), but needs one of class indices: '
                'turn colours into indices first'
            )
        return self._count(info) if read or mode.startswith('I') else None  # I: 16 or 32 bits

    def _count(self, info: dict) -> tuple[np.ndarray, int]:
        path = info['seg_map_path']
        info = dict(info)
        if self.ignore_index == IGNORE_INDEX:
            info.setdefault('num_classes', self.num_classes)
        try:
            label = self.loader(info)['gt_seg_map']
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises all three
            named = str(path) in str(error)
            raise _Problem(str(error) if named else f'{path}: {error}') from error
        counts = np.bincount(label.ravel(), minlength=max(self.num_classes, self.ignore_index + 1))
        ignored = int(counts[self.ignore_index])
        counts[self.ignore_index] = 0
        wrong = np.flatnonzero(counts[self.num_classes :]) + self.num_classes
        if len(wrong):
            raise _Problem(
                f'{path}: read as training reads it, the label holds the value {wrong[0]}, but the '
                f'classes are 0 to {self.num_classes - 1} ({self.ignore_index} is ignored)'
            )
        return counts[: self.num_classes], ignored


class _Problem(Exception):
    """Ends the check of one pair."""


def _check_files(
    report: SplitReport,
    data: BaseSegDataset,
    check: _PairCheck,
    max_labels: int | None,
    progress: str,
) -> None:
    infos = [data.get_data_info(i) for i in range(len(data))]
    wanted = min(len(infos), max_labels if max_labels is not None else len(infos))
    chosen = set(np.linspace(0, len(infos) - 1, wanted).astype(int).tolist())
    jobs = [(info, i in chosen) for i, info in enumerate(infos)]
    results = track(_run(check, jobs), progress, len(jobs), disable=not progress)
    for found in results:
        report.images += 1
        report.problems += found['problems']
        if found.get('size'):
            report.sizes[found['size']] += 1
        if found.get('label'):
            report.add_label(*found['label'])
    _check_unused_labels(report, data, infos)


def _run(check: _PairCheck, jobs: list[tuple[dict, bool]]) -> Iterator[dict]:
    """Results in order, from several processes where that pays."""
    if len(jobs) <= FEW:
        yield from map(check, jobs)
        return
    # Forked children start at once; they only use PIL and NumPy, so no lock of torch can hold them.
    context = get_context('fork' if sys.platform == 'linux' else None)
    # At Ctrl-C they end without a traceback each.
    end = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(os.cpu_count(), context, signal.signal, end) as pool:
        yield from pool.map(check, jobs, chunksize=8)


def _check_unused_labels(report: SplitReport, data: BaseSegDataset, infos: list[dict]) -> None:
    folder = data.data_prefix.get('seg_map_path')
    if data.ann_file or data._indices is not None or not folder or not Path(folder).is_dir():
        return  # labels may be left out
    used = {os.path.normpath(info['seg_map_path']) for info in infos}
    report.warnings += [
        f'{path}: no image belongs to this label'
        for path in sorted(Path(folder).rglob(f'*{data.seg_map_suffix}'))
        if os.path.normpath(path) not in used
    ]


def _check_histogram(report: SplitReport) -> None:
    never = [name for name, n in zip(report.classes, report.pixels, strict=True) if n == 0]
    if not report.labels_read or not never:
        return
    if never == [report.classes[-1]] and len(report.classes) == 2 and report.ignored:
        report.problems.append(
            f'{report.labels_read} labels hold only class 0 and the ignored value: give masks of 0 '
            f'and 255 label_map={{255: 1}}, or {never[0]} is never learned'
        )
    else:
        report.warnings.append(f'never seen in {report.labels_read} labels: {", ".join(never)}')
