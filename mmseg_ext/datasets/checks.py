"""Checks of a data set before training; they read its files as the data set itself does."""

import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations as AnyLoadAnnotations
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from ..config.walk import as_list, leaf_datasets, nested_dicts
from ..errors import UserError
from ..host import is_subset
from ..processes import end_with_parent
from .folder import FolderDataset
from .image_files import find_images
from .split_report import SplitReport
from .transforms import IGNORE_INDEX, TOO_LARGE, LoadImage, LoadSegMap

FEW = 64  # up to this number of files, one process is faster than starting several
TURNED = (5, 6, 7, 8)  # EXIF orientations that turn an image by 90 degrees when it is loaded


def check_splits(
    cfg: dict[str, Any], splits: Sequence[str] = ('train', 'val', 'test'), **options: Any
) -> Iterator[tuple[str, SplitReport]]:
    """Checks the data sets of a config one by one, and their class count against its model.

    Args:
        cfg: Config with ``model`` and dataloaders.
        splits: Names of the splits to check; a split with the same data set as an earlier split is
            skipped.
        **options: Arguments of ``check_split``.

    Raises:
        UserError: None of the splits has a data set, or see ``check_split``.
    """
    checked: list[dict] = []
    classes: dict[str, tuple[str, ...]] = {}
    for split in splits:
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        if dataset is None or dataset in checked:
            continue
        checked.append(dataset)
        report = check_split(dataset, **options)
        report.problems += _check_class_counts(cfg['model'], report.classes)
        report.problems += _check_class_order(classes, report.classes)
        classes[split] = report.classes
        yield split, report
    if not checked:
        names = ', '.join(f'{split}_dataloader' for split in splits)
        raise UserError(f'the config has no data: give it a dataset in {names}')


def check_split(
    dataset: dict, *, max_labels: int | None = None, decode_images: bool = False, progress: str = ''
) -> SplitReport:
    """Reads the headers of all files of a data set and the values of its labels.

    Args:
        dataset: Config of the data set, possibly inside wrappers such as ``RepeatDataset``.
        max_labels: Number of labels to read, evenly spaced; None reads all. Labels of 16 bits are
            always read.
        decode_images: Whether to decode every image too, which finds damaged images.
        progress: Text beside the progress bar; an empty text shows no bar.

    Raises:
        UserError: A folder or list of the data set is missing or holds no image, or the data set
            has no class names.
    """
    leaves = leaf_datasets(dataset)
    checkable = [leaf for leaf in leaves if issubclass(DATASETS.get(leaf['type']), BaseSegDataset)]
    built = [_build(leaf) for leaf in checkable]
    report = SplitReport(tuple(built[0].metainfo['classes']) if built else ())
    report.warnings += [
        f'{leaf["type"]} is not a BaseSegDataset: its files are not checked'
        for leaf in leaves
        if leaf not in checkable
    ]
    for leaf, data in zip(checkable, built, strict=True):
        if tuple(data.metainfo['classes']) != report.classes:
            raise UserError(
                'the data sets of one split must have the same classes: '
                f'{checkable[0]["type"]} has {len(report.classes)}, {leaf["type"]} has '
                f'{len(data.metainfo["classes"])} others'
            )
        check = _PairCheck(
            loader=_label_loader(leaf, dataset),
            image_loader=_image_loader(leaf, dataset),
            decode_images=decode_images,
            num_classes=len(report.classes),
            ignore_index=data.ignore_index,
        )
        _check_files(report, data, check, max_labels, progress)
    _check_histogram(report)
    return report


def _check_class_counts(model: Any, classes: tuple[str, ...]) -> list[str]:
    """Problems of heads in a model's config whose ``num_classes`` differs from the data set's."""
    problems = []
    for path, node in nested_dicts(model):
        names = [key for key in path.split('.') if not key.isdigit()]
        count = node.get('num_classes', len(classes))
        if classes and count != len(classes) and 'head' in names[-1]:
            problems.append(
                f'model.{path}.num_classes={count}, but the data set has {len(classes)} classes '
                f'({", ".join([*classes[:3], *(["..."] if len(classes) > 3 else [])])}): '
                f'set it to {len(classes)}'
            )
    return problems


def _check_class_order(earlier: dict[str, tuple[str, ...]], classes: tuple[str, ...]) -> list[str]:
    """Problem of a split whose classes are those of an earlier split in another order."""
    return [
        f'it has the classes of the {split} data in another order, first {classes[i]} is where '
        f'{others[i]} is: write the same metainfo for both'
        for split, others in list(earlier.items())[:1]
        if others != classes and sorted(others) == sorted(classes)
        for i in [next(i for i, name in enumerate(classes) if name != others[i])]
    ]


def _build(leaf: dict) -> BaseSegDataset:
    """The data set without its pipeline; for the host's data sets the folders are checked first."""
    if not issubclass(DATASETS.get(leaf['type']), FolderDataset):
        _check_folders(leaf)
    try:  # serialising an empty list fails in the host
        data = DATASETS.build({**leaf, 'pipeline': [], 'serialize_data': False})
    except OSError as error:  # from the host's search for images, as of a link to itself
        raise UserError(
            f'{error.filename} cannot be read ({error.strerror or error}): restore or remove it'
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f'{leaf.get("ann_file")} is no text: give a list of images') from error
    folder = data.data_prefix.get('img_path')
    if not data.ann_file and folder and os.path.isdir(folder):
        find_images(folder, as_list(data.img_suffix))  # refuses links that the host omits
    if len(data) == 0 and data.ann_file:
        raise UserError(f'{data.ann_file} lists no image: add names, or remove ann_file')
    if len(data) == 0:
        raise UserError(
            f'{leaf["type"]} finds no image ending in {data.img_suffix} under {folder}, which '
            f'holds {_suffixes(folder)}: correct --data-root, data_prefix or img_suffix'
        )
    if not data.metainfo.get('classes'):
        raise UserError(
            f"{leaf['type']} has no class names: add metainfo=dict(classes=('...', '...'))"
        )
    return data


def _check_folders(leaf: dict) -> None:
    root = leaf.get('data_root') or ''
    paths = [*(leaf.get('data_prefix') or {}).values(), leaf.get('ann_file')]
    for path in (Path(root), *(Path(root, relative) for relative in paths if relative)):
        if '://' not in str(root) and not path.exists():
            raise UserError(
                f'{path}, which {leaf["type"]} reads, does not exist: put the data there or name '
                'its folder with --data-root'
            )


def _suffixes(folder: Any) -> str:
    """Number of files in a folder by suffix: '367 .png, 2 .txt' or 'no file'."""
    counts = Counter(path.suffix or 'without suffix' for path in Path(folder).rglob('*.*'))
    return ', '.join(f'{n} {suffix}' for suffix, n in counts.most_common(3)) or 'no file'


def _label_loader(leaf: dict, dataset: dict) -> AnyLoadAnnotations:
    """The transform that reads labels in training: the first of its kind in the pipelines."""
    for _, node in (*nested_dicts(leaf), *nested_dicts(dataset)):
        cls = TRANSFORMS.get(node['type']) if isinstance(node.get('type'), str) else None
        if cls is LoadAnnotations:
            break  # LoadSegMap reads the same values and explains errors
        if inspect.isclass(cls) and issubclass(cls, AnyLoadAnnotations):
            return TRANSFORMS.build(node)
    return LoadSegMap()


def _image_loader(leaf: dict, dataset: dict) -> LoadImageFromFile | None:
    """The transform that reads images in training; None for data of another kind."""
    for _, node in (*nested_dicts(leaf), *nested_dicts(dataset)):
        cls = TRANSFORMS.get(node['type']) if isinstance(node.get('type'), str) else None
        if inspect.isclass(cls) and issubclass(cls, LoadImageFromFile):
            # LoadImage reads the same images and explains errors.
            plain = cls is LoadImageFromFile
            return TRANSFORMS.build({**node, 'type': LoadImage} if plain else node)
    return None


def _require_no_pipe(path: str) -> None:
    """Refuses a file that a reader would wait for without end."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise _Problem(f'{path} is no file, but a pipe or a device: restore or remove it')


@dataclass
class _PairCheck:
    """Checks one image and its label; an object, so that other processes can receive it."""

    loader: AnyLoadAnnotations
    num_classes: int
    ignore_index: int
    image_loader: LoadImageFromFile | None
    decode_images: bool

    def __call__(self, job: tuple[dict, bool]) -> dict:
        """Findings of a job (info of the pair from the data set, whether to read the label)."""
        info, read_label = job
        findings: dict = {'problems': []}
        try:
            for key in ('img_path', 'seg_map_path'):
                _require_no_pipe(info.get(key) or '')
            findings['size'] = self._image_size(info['img_path'])
            if self.decode_images:
                findings['size'] = self._decoded_size(info['img_path']) or findings['size']
            if info.get('seg_map_path') is not None:
                findings['label'] = self._label(info, findings['size'], read_label)
            elif 'panoptic' in info and read_label:  # masks that stand in a json
                findings['label'] = self._count(info)
        except _Problem as problem:
            findings['problems'].append(str(problem))
        return findings

    def _image_size(self, path: str) -> tuple[int, int] | None:
        """(width, height) as loaded; None for a format that PIL cannot read."""
        try:
            with Image.open(path) as image:
                photo = image.format in ('JPEG', 'MPO')  # for a PNG, ``getexif`` would decode it
                turned = photo and image.getexif().get(0x0112) in TURNED
                return (image.height, image.width) if turned else image.size
        except Image.DecompressionBombError as error:
            raise _Problem(f'{path}: {TOO_LARGE}') from error
        except FileNotFoundError:
            raise _Problem(f'{path}: the image does not exist: restore it') from None
        except (OSError, SyntaxError) as error:  # PIL raises these for a damaged file
            if Path(path).suffix.lower() in Image.registered_extensions():
                reason = str(error).partition(' image file ')[0]  # PIL repeats the path
                raise _Problem(
                    f'{path}: the image cannot be read ({reason}): restore or remove it'
                ) from error
            return None

    def _decoded_size(self, path: str) -> tuple[int, int] | None:
        """(width, height) as loaded, after EXIF turned it; None for images of another kind."""
        if self.image_loader is None:
            return None
        try:
            height, width = self.image_loader(dict(img_path=path))['img'].shape[:2]
        except (OSError, ValueError) as error:
            raise _Problem(str(error)) from error
        return width, height

    def _label(
        self, info: dict, image_size: tuple[int, int] | None, read: bool
    ) -> tuple[np.ndarray, int] | None:
        """Pixels of each class and ignored pixels; None for a label that need not be read."""
        path = info['seg_map_path']
        try:
            with Image.open(path) as header:
                size, mode, bands = header.size, header.mode, len(header.getbands())
                lossy = header.format == 'JPEG'
        except FileNotFoundError:
            raise _Problem(
                f'{info["img_path"]}: its label {path} does not exist: add it or remove the image'
            ) from None
        except Image.DecompressionBombError as error:
            raise _Problem(f'{path}: {TOO_LARGE}') from error
        except UnidentifiedImageError:
            return self._count(info)
        except OSError as error:
            raise _Problem(
                f'{path}: the label cannot be read ({error.strerror}): restore or remove it'
            ) from error
        if lossy:
            raise _Problem(f'{path}: the label is a JPEG, which changes class indices: make a PNG')
        if image_size and size != image_size:
            image_size = self._decoded_size(info['img_path']) or image_size
        if image_size and size != image_size:
            raise _Problem(
                f'{path}: the label has {size[0]}x{size[1]} pixels, '
                f'its image {image_size[0]}x{image_size[1]}: both must have the same size'
            )
        if bands > 1 and isinstance(self.loader, LoadSegMap):
            raise _Problem(
                f'{path}: the label has {bands} channels ({mode}), but needs one channel of class '
                'indices: turn colours into indices first'
            )
        return self._count(info) if read or mode.startswith('I') else None  # I: 16 or 32 bits

    def _count(self, info: dict) -> tuple[np.ndarray, int]:
        path = info.get('seg_map_path') or info['img_path']
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
                f'{path}: as loaded for training, the label holds the value {wrong[0]}, but the '
                f'classes are 0 to {self.num_classes - 1} ({self.ignore_index} is ignored)'
            )
        return counts[: self.num_classes], ignored


class _Problem(Exception):
    """A problem of one image or label; it ends the check of this pair."""


def _check_files(
    report: SplitReport,
    data: BaseSegDataset,
    check: _PairCheck,
    max_labels: int | None,
    progress: str,
) -> None:
    infos = [data.get_data_info(i) for i in range(len(data))]
    num_labels = min(len(infos), max_labels if max_labels is not None else len(infos))
    chosen = set(np.linspace(0, len(infos) - 1, num_labels).astype(int).tolist())
    jobs = [(info, i in chosen) for i, info in enumerate(infos)]
    results = track(_run(check, jobs), progress, len(jobs), disable=not progress)
    for findings in results:
        report.images += 1
        report.problems += findings['problems']
        if findings.get('size'):
            report.sizes[findings['size']] += 1
        if findings.get('label'):
            report.add_label(*findings['label'])
    _check_unused_labels(report, data, infos)


def _run(check: _PairCheck, jobs: list[tuple[dict, bool]]) -> Iterator[dict]:
    """Results in order, from several processes where that is faster."""
    if len(jobs) <= FEW:
        yield from map(check, jobs)
        return
    # Forked children start at once. They use PIL and NumPy alone, so no lock of torch stops them.
    context = get_context('fork' if sys.platform == 'linux' else None)
    with ProcessPoolExecutor(os.cpu_count(), context, end_with_parent) as pool:
        yield from pool.map(check, jobs, chunksize=8)


def _check_unused_labels(report: SplitReport, data: BaseSegDataset, infos: list[dict]) -> None:
    folder = data.data_prefix.get('seg_map_path')
    if data.ann_file or is_subset(data) or not folder or not Path(folder).is_dir():
        return  # a subset of the labels is in use on purpose
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
            f'{report.labels_read} labels hold only class 0 and the ignored value, and no pixel '
            f'of {never[0]}: for masks of 0 and 255 set label_map={{255: 1}}'
        )
    else:
        report.warnings.append(f'not in any of {report.labels_read} labels: {", ".join(never)}')
