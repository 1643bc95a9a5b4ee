"""Labels for the images of class folders, from explanations of classifiers.

The files on disk are the only state of a run: each label is complete or absent and holds its
numbers. So a run can be stopped and continued, and several processes can share it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from mmseg_ext.datasets.folder import IMAGE_SUFFIXES
from mmseg_ext.datasets.image_files import find_images
from mmseg_ext.datasets.transforms import read_image

from ...errors import UserError
from .classifiers import Classifier
from .explanations import consensus, explanation_map, resize_maps, smoothgrad
from .label_files import SUMMARY, read_statistics, read_summary, write_label, write_summary
from .overlap import count_overlap, read_mask
from .pixel_labels import deciles, top_decile
from .preview import draw_preview

PREVIEWS = 'preview'


@dataclass(frozen=True)
class Settings:
    """Settings of a run, which all labels in a folder share.

    Args:
        n_samples: Number of noisy copies of an image per classifier (50 as released).
        noise_amount: Standard deviation of the noise as a fraction of the image's range of values.
        normalize: Size that a map is divided by; see ``consensus``.
        explain: Class that is explained: 'folder', that of the image, or 'top1', the class of the
            highest mean probability, for classifiers of other classes than the folders.
        all_deciles: Whether the labels hold all tenths.
        seed: Seed of the noise; that of an image depends on its name too, on nothing else.
    """

    n_samples: int = 50
    noise_amount: float = 0.1
    normalize: str = 'l2'
    explain: str = 'folder'
    all_deciles: bool = False
    seed: int = 0


def make_labels(
    images: Path,
    classifiers: Sequence[Classifier],
    out: Path,
    settings: Settings | None = None,
    *,
    masks: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    previews: int = 0,
    device: str = 'cpu',
) -> dict[str, Any] | None:
    """Labels every image of class folders that has no label yet.

    The label of ``images/cat/1.jpg`` is ``out/cat/1.png``: the most important tenth of the pixels.
    ``out/pssl.json`` has the classes and the settings, and after the last image the numbers of
    classifiers and labels.

    Args:
        images: Folder of class folders.
        classifiers: Classifiers, with different names; the noise depends on the name.
        out: Output folder, new or of a stopped run.
        settings: Settings.
        masks: Folder of masks of the objects, as PNG files named like the images, not 0 on the
            object; the labels are compared with them.
        shard: Number of this process and number of all, (i, n); it labels each n-th image.
        previews: Number of images whose maps are drawn into ``out/preview``.
        device: Device: ``cpu``, ``cuda``, ``cuda:1``, ...

    Returns:
        Content of ``pssl.json``; None if other processes have not labelled all their images.

    Raises:
        UserError: A folder, image, mask or classifier cannot be used, or ``out`` holds labels of
            other classes or settings.
    """
    settings = settings or Settings()
    names, classes = find_classes(images)
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f'{out} lies in {images}, so labels would become images: name another --out'
        )
    maker = _Maker(images, [c.to(device) for c in classifiers], classes, settings, masks, device)
    written = dict(classes=classes, **maker.description())
    is_new = not (out / SUMMARY).exists()
    if not is_new:
        _compare(out, written)
    maker.check_classifiers(images / names[0])
    if is_new:
        write_summary(out, written)
    chosen = np.linspace(0, len(names) - 1, min(previews, len(names))).astype(int).tolist()
    pending = [
        (name, out / PREVIEWS / f'{name}.jpg' if i in chosen else None)
        for i, name in list(enumerate(names))[shard[0] :: shard[1]]
        if not _label(out, name).exists()
        or (i in chosen and not (out / PREVIEWS / f'{name}.jpg').exists())
    ]
    bar = f'label (process {shard[0] + 1} of {shard[1]})'
    for name, preview in track(pending, bar, disable=not pending):
        tenths, statistics = maker.label(name, preview)
        write_label(_label(out, name), tenths.numpy(), statistics, all_tenths=settings.all_deciles)
    if not all(_label(out, name).exists() for name in names):
        return None
    statistics_of_images = [read_statistics(_label(out, name)) for name in names]
    written |= dict(images=len(names), statistics=_mean(statistics_of_images))
    write_summary(out, written)
    return written


def find_classes(images: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the images in class folders, such as ``cat/1.jpg``, and of the folders.

    Raises:
        UserError: The folder does not exist or has no image, an image lies in no class folder, or
            two images would have the same label.
    """
    if not images.is_dir():
        raise UserError(f'{images} is no folder: give a folder of class folders')
    names = [Path(p).relative_to(images).as_posix() for p in find_images(images, IMAGE_SUFFIXES)]
    if not names:
        raise UserError(f'{images} holds no image in class folders: give another folder')
    loose = [name for name in names if '/' not in name]
    if loose:
        raise UserError(
            f'{images / loose[0]} lies in no class folder: put each image into a folder that is '
            'called like its class'
        )
    stems: dict[str, str] = {}
    for name in names:
        first = stems.setdefault(name.rpartition('.')[0], name)
        if first != name:
            raise UserError(f'{first} and {name} would have the same label: rename one of them')
    return names, sorted({name.partition('/')[0] for name in names})


def _label(out: Path, name: str) -> Path:
    return (out / name).with_suffix('.png')


def _compare(out: Path, written: dict[str, Any]) -> None:
    """Refuses to continue a run of other classes or settings."""
    earlier = read_summary(out)
    if earlier.get('classes') != written['classes']:
        differing = sorted(set(earlier.get('classes', ())) ^ set(written['classes']))
        raise UserError(
            f'{out} holds labels of {len(earlier.get("classes", ()))} class folders, and now there '
            f'are {len(written["classes"])} (different: {", ".join(differing[:3])}), so that the '
            'classes would have other numbers: restore the folders, or name another --out'
        )
    for key, value in written.items():
        if earlier.get(key) != value:
            raise UserError(
                f'{out} holds labels of other settings ({key}={_short(earlier.get(key))}, now '
                f'{_short(value)}): repeat these settings, or name another --out'
            )


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = [v.get('name') if isinstance(v, dict) else v for v in value]
    return str(value)[:60]


class _Maker:
    """Explains images by all classifiers."""

    def __init__(
        self,
        images: Path,
        classifiers: Sequence[Classifier],
        classes: Sequence[str],
        settings: Settings,
        masks: Path | None,
        device: str,
    ) -> None:
        if not classifiers:
            raise UserError('no classifier is given: name one or more by --models')
        self.images, self.classifiers, self.settings = images, classifiers, settings
        self.masks, self.device = masks, device
        self.indices = {name: i for i, name in enumerate(classes)}

    def description(self) -> dict[str, Any]:
        return dict(
            vars(self.settings),
            masks=str(self.masks) if self.masks else None,
            classifiers=[classifier.describe() for classifier in self.classifiers],
        )

    def check_classifiers(self, path: Path) -> None:
        """Refuses classifiers that do not fit the folders, or each other.

        Raises:
            UserError: A classifier has another number of outputs than classes, does not know a
                folder, or, for 'top1', has other outputs than the first classifier.
        """
        image = self._read(path)
        counts = [len(c.probabilities(c.prepare(image))) for c in self.classifiers]
        for classifier, count in zip(self.classifiers, counts, strict=True):
            name, names = classifier.name, classifier.classes
            if names is not None and len(names) != count:
                raise UserError(
                    f'{name} has {count} outputs, but names {len(names)} classes: correct classes'
                )
            if self.settings.explain == 'top1':
                if count != counts[0]:
                    raise UserError(
                        f'{name} has {count} outputs and {self.classifiers[0].name} {counts[0]}: '
                        'give classifiers of the same classes'
                    )
            elif names is None and count != len(self.indices):
                raise UserError(
                    f'{name} has {count} outputs, but there are {len(self.indices)} class folders: '
                    'give it the names of its classes, or explain its own class by --explain top1'
                )
            elif missing := sorted(set(self.indices) - set(names or self.indices)):
                raise UserError(
                    f'{name} does not know the class folder {missing[0]} ({len(missing)} of '
                    f'{len(self.indices)} are missing): rename it, or explain the class that the '
                    'classifiers predict by --explain top1'
                )

    def label(self, name: str, preview: Path | None) -> tuple[Tensor, dict[str, Any]]:
        """Deciles of an image, uint8 (H, W), and its numbers for the summary."""
        image = self._read(self.images / name)
        prepared = [classifier.prepare(image) for classifier in self.classifiers]
        probs = [c.probabilities(x) for c, x in zip(self.classifiers, prepared, strict=True)]
        targets = self._targets(name.partition('/')[0], probs)
        maps = torch.stack(
            [
                self._explain(i, name, x, target, image.shape[1:])
                for i, (x, target) in enumerate(zip(prepared, targets, strict=True))
            ]
        )
        importance = consensus(maps[:, None], self.settings.normalize)[0].cpu()
        tenths = deciles(importance)
        statistics: dict[str, Any] = dict(
            probability=[round(float(p[t]), 4) for p, t in zip(probs, targets, strict=True)],
            hit=[int(p.argmax() == t) for p, t in zip(probs, targets, strict=True)],
        )
        if self.masks is not None:
            mask = read_mask(self.masks, name, importance.shape)
            statistics['overlap'] = [
                count_overlap(top_decile(self._consensus_of_first(maps, count)), mask)
                for count in range(1, len(maps) + 1)
            ]
        if preview is not None:
            firsts = [self._consensus_of_first(maps, n) for n in {1, len(maps)}]
            draw_preview(preview, image, firsts, tenths, name.partition('/')[0])
        return tenths, statistics

    def _read(self, path: Path) -> Tensor:
        """Image of a file, RGB from 0 to 255, uint8 (3, H, W)."""
        rgb = np.ascontiguousarray(read_image(path)[..., ::-1])
        return torch.from_numpy(rgb).permute(2, 0, 1).to(self.device)

    def _targets(self, folder: str, probs: Sequence[Tensor]) -> list[int]:
        """Output of each classifier that is explained."""
        if self.settings.explain == 'top1':
            return [int(torch.stack(list(probs)).mean(0).argmax())] * len(probs)
        return [
            self.indices[folder] if c.classes is None else list(c.classes).index(folder)
            for c in self.classifiers
        ]

    def _explain(
        self, number: int, name: str, x: Tensor, target: int, size: Sequence[int]
    ) -> Tensor:
        """Map (H, W) of one classifier."""
        classifier = self.classifiers[number]
        text = f'{self.settings.seed}/{classifier.name}/{name}'
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], 'big')
        gradients = smoothgrad(
            classifier.module,
            x,
            torch.tensor([target], device=x.device),
            n_samples=self.settings.n_samples,
            noise_amount=self.settings.noise_amount,
            generator=torch.Generator().manual_seed(seed),
        )
        if not gradients.isfinite().all():
            raise UserError(
                f'{self.images / name}: the gradients of {classifier.name} are not finite: give '
                'other weights or remove the image'
            )
        return resize_maps(explanation_map(gradients), (size[0], size[1]))[0]

    def _consensus_of_first(self, maps: Tensor, count: int) -> Tensor:
        return consensus(maps[:count, None], self.settings.normalize)[0].cpu()


def _mean(statistics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the images, a value for each classifier or number of classifiers."""
    means = {
        key: np.mean([s[key] for s in statistics], 0).round(4).tolist()
        for key in ('probability', 'hit')
    }
    if 'overlap' in statistics[0]:
        counts = np.array([s['overlap'] for s in statistics], float)  # (images, n, 4)
        both, label, mask, pixels = counts.transpose(2, 0, 1)
        means |= dict(
            iou=(both / (label + mask - both).clip(1)).mean(0).round(4).tolist(),
            precision=(both / label.clip(1)).mean(0).round(4).tolist(),
            object_share=float((mask / pixels).mean().round(4)),
            largest_iou=float(
                (np.minimum(label, mask) / np.maximum(label, mask).clip(1)).mean().round(4)
            ),
        )
    return means
