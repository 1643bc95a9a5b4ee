"""MagNet's segmentor: a frozen network, refined from scale to scale."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from mmengine.model import ModuleList
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ...errors import UserError
from ...segmentors.protocols import Maps, Pixel, no_single_pixels
from . import patches as cuts
from .patches import Place, Size, resize
from .points import certainty, median_filter, nearest, nearest_index, select_points

REFINER = MappingProxyType(dict(type='MagNetRefiner'))
LOSS = MappingProxyType(dict(type='MagNetOhemLoss'))
MIB = 2**20
CPU_PIXELS = 2**15  # of patches at a time on a CPU: more of them gain nothing there


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What ``test_cfg`` says.

    Args:
        n_points: So many points of every scale are refined; up to 1 it is their share of the
            pixels. Where only some patches are refined, at most their share of the pixels.
        n_patches: So many patches of every scale are refined, those of the largest mean
            uncertainty (MagNet-Fast); None refines all.
        smooth_kernel: Side of the median filter of the scores, odd.
        border: Of chosen patches, a frame of so many pixels of the scale is not refined, as they
            lack context there; at most a quarter of a patch.
        stages: Stops after so many scales; 1 is the segmentor alone. None uses all.
        memory_limit: MiB that inference may take beside the image and the result. Half of it is
            for maps of a scale, the rest for patches in the network: as many as fit at a time,
            one at least. Where the model has no ``scales``, an image whose maps would be larger is
            cut into tiles, each predicted as an image of its own.

    Raises:
        ValueError: A number that cannot be.
    """

    n_points: float = 32768
    n_patches: int | None = None
    smooth_kernel: int = 5
    border: int = 10
    stages: int | None = None
    memory_limit: float = 4096

    def __post_init__(self) -> None:
        lowest = dict(n_points=0, n_patches=0, smooth_kernel=1, border=0, stages=1)
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f'test_cfg.{name}={value} must be at least {least}')
        if self.smooth_kernel % 2 == 0:
            raise UserError(
                f'test_cfg.smooth_kernel={self.smooth_kernel} has no middle: take an odd number'
            )
        if self.memory_limit <= 0:
            raise UserError(f'test_cfg.memory_limit={self.memory_limit} must be above 0 MiB')

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any] | None) -> 'Inference':
        """Raises ValueError for keys that are none of these."""
        given = dict(test_cfg or {})
        known = [field.name for field in fields(cls)]
        if unknown := sorted(given.keys() - set(known)):
            raise UserError(
                f'MagNet does not know test_cfg.{unknown[0]}: it reads {", ".join(known)}'
            )
        return cls(**given)

    def points_of(self, size: Size, chosen: int, patches: int) -> int:
        """How many pixels of a scale are refined."""
        pixels = size[0] * size[1]
        if self.n_points <= 1:
            return int(pixels * self.n_points * chosen / patches)
        return int(min(self.n_points, pixels * chosen / patches))


class Stage(NamedTuple):
    """What is known after a scale."""

    probs: Tensor  # (1, K, h, w); of the first scale at the network's size
    before: Tensor | None = None  # those of the scale before; None at the first
    points: Tensor | None = None  # (h, w) bool, what was refined


class Sample(NamedTuple):
    """What a refiner learns from in one image."""

    fine: Tensor  # (1, 3, *patch), a patch of a scale
    place: Place
    size: Size  # of the scale
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 of the patch in the coarse prediction
    label: Tensor  # (1, *input_size)


@MODELS.register_module()
class MagNet(BaseSegmentor):
    """Refines what a frozen segmentor says of the whole image, scale by scale, where it is unsure.

    The segmentor sees images of ``input_size`` only: first the image as a whole, then patches of
    finer and finer scales. At each scale the refiner merges what the segmentor says of a patch with
    what is known so far, and takes effect at the points where it is sure and the other was not.

    Args:
        segmentor: Config of any trained segmentor with two classes or more. Its checkpoint comes
            from ``init_cfg=dict(type='Pretrained', checkpoint=...)`` in it, or as the starting
            weights of the whole (``load_from``). It is frozen, its norms too.
        patch_size: (h, w) of a patch in pixels of its scale, and the size of the first scale.
        scales: (h, w) of all scales, coarse to fine. None doubles the first until it has the size
            of the image, so that every pixel of it is seen, however many there are.
        input_size: (h, w) to which patches are resized for the networks; None keeps them.
        refiner: Config of the refiner.
        num_refiners: 1 shares it among the scales; with more, scale s > 0 has number
            min(num_refiners, s).
        loss_refiner: Loss on the refiner's logits (N, K, h, w) and labels (N, h, w).
        ignore_index: Label that does not count.
        as_released: Reproduces the released code where it differs: the refiner's inputs swapped in
            training, ``n_patches`` of the *least* uncertainty, steps between patches cut to whole
            pixels, and of overlapping patches the last one divided by their number.
        train_cfg: Not used.
        test_cfg: See ``Inference``.
        data_preprocessor: As for every model; that of ``segmentor`` is not used.

    Raises:
        ValueError: One output channel, scales that do not grow from ``patch_size``, an unknown or
            impossible entry of ``test_cfg``, or a checkpoint of the refiner alone.
    """

    explains = True
    explains_pixels = False

    frozen_part = 'segmentor.'  # what a checkpoint to start a training from holds

    def __init__(
        self,
        *,
        segmentor: Mapping,
        patch_size: Size,
        scales: Sequence[Size] | None = None,
        input_size: Size | None = None,
        refiner: Mapping = REFINER,
        num_refiners: int = 1,
        loss_refiner: Mapping = LOSS,
        ignore_index: int = 255,
        as_released: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.patch_size: Size = _size('patch_size', patch_size)
        self.input_size: Size = _size('input_size', input_size or patch_size)
        self.scales = None if scales is None else [_size('scales', scale) for scale in scales]
        self._check_scales()
        if num_refiners < 1:
            raise UserError(f'num_refiners={num_refiners} leaves nothing to train: take 1 or more')
        self.inference = Inference.of(test_cfg)
        self.ignore_index = ignore_index
        self.as_released = as_released
        self.segmentor: Any = MODELS.build(dict(segmentor)).requires_grad_(False).eval()
        if self.segmentor.out_channels < 2:
            raise UserError(
                'MagNet compares the two most probable classes, but the segmentor has one output '
                'channel: give it num_classes=2 and out_channels=2'
            )
        self.refiners = ModuleList(
            MODELS.build(dict(refiner, num_classes=self.num_classes)) for _ in range(num_refiners)
        )
        self.loss_refiner: Any = MODELS.build(dict(loss_refiner))
        self.is_trained = _is_pretrained(segmentor.get('init_cfg'))  # the segmentor
        self._patch_bytes: int | None = None  # what a patch takes in the networks on a GPU

    def _check_scales(self) -> None:
        if self.scales is None:
            return
        steps = zip(self.scales, self.scales[1:], strict=False)
        if self.scales[:1] != [self.patch_size] or any(
            a[0] > b[0] or a[1] > b[1] or a == b for a, b in steps
        ):
            raise UserError(
                f'scales={self.scales} must start with patch_size={self.patch_size}, at which the '
                'whole image is one patch, and grow'
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.segmentor.num_classes

    @property
    def out_channels(self) -> int:
        """K too, for the host."""
        return self.num_classes

    @property
    def align_corners(self) -> bool:
        """How the host resizes the result to the size of the file."""
        return False

    def train(self, mode: bool = True) -> 'MagNet':
        """As of every module, but the segmentor stays in evaluation."""
        super().train(mode)
        self.segmentor.eval()
        return self

    def sizes_of(self, image: Sequence[int]) -> list[Size]:
        """Scales (h, w) of an image of (H, W), coarse to fine."""
        if self.scales is not None:
            return self.scales
        return cuts.doubled_sizes(self.patch_size, (image[0], image[1]))

    def segment(self, patches: Tensor, places: Sequence[Place], size: Size) -> Tensor:
        """What the segmentor says of patches (P, 3, *patch) at ``places`` of a scale of ``size``.

        Returns:
            Probabilities (P, K, *input_size), float32 or better.
        """
        return self._segment(patches, [self._meta(place, size) for place in places])

    def _segment(self, patches: Tensor, metas: list[dict]) -> Tensor:
        logits = self.segmentor.encode_decode(resize(patches, self.input_size), metas)
        return _softmax(logits[:, : self.num_classes])

    def _meta(self, place: Place, size: Size) -> dict[str, Any]:
        """What heads are told of a patch: its size, its place and that of the whole scale."""
        (y, x), (h, w), (high, wide) = place, self.patch_size, self.input_size
        shape = torch.Size(self.input_size)  # not a tuple: the host's heads know a window by it
        return dict(
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            padding_size=[0] * 4,
            window=(y * high // h, x * wide // w),
            window_of=(size[0] * high // h, size[1] * wide // w),
        )

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the refiners, each on a random patch of every image (N, 3, H, W).

        Beside them the share of right pixels, in per cent, of the patch in the prediction of the
        whole image (``acc_coarse``), in its own (``acc_fine``) and after the refiner
        (``acc_refined``).

        Raises:
            ValueError: The segmentor has no weights, or an image has no finer scale.
        """
        if not self.is_trained:
            raise UserError(
                'MagNet trains its refiner on a trained segmentor, and has no weights of it: name '
                'its checkpoint by --init PATH, or in the config by '
                "segmentor=dict(init_cfg=dict(type='Pretrained', checkpoint=PATH))"
            )
        pairs = [_unpadded(*pair) for pair in zip(inputs, data_samples, strict=True)]
        first = [(0, 0)] * len(pairs)
        whole = torch.cat([resize(image, self.patch_size) for image, _ in pairs])
        with torch.no_grad():
            coarse = self.segment(whole, first, self.patch_size)
        losses: dict[str, Tensor] = {}
        for i, refiner in enumerate(self.refiners):
            samples = [self._sample(*pair, i) for pair in pairs]
            with torch.no_grad():
                metas = [self._meta(one.place, one.size) for one in samples]
                fine = self._segment(torch.cat([one.fine for one in samples]), metas)
                context = cuts.roi_align(coarse, [one.box for one in samples], self.input_size)
            both = (context, fine) if self.as_released else (fine, context)
            logits = refiner(*both)
            label = torch.cat([one.label for one in samples])
            prefix = f'refiner_{i}.' if len(self.refiners) > 1 else ''
            name = prefix + self.loss_refiner.loss_name
            losses[name] = self.loss_refiner(logits, label, ignore_index=self.ignore_index)
            for key, scores in dict(coarse=context, fine=fine, refined=logits.detach()).items():
                losses[f'{prefix}acc_{key}'] = _accuracy(scores, label, self.ignore_index)
        return losses

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """The refiner's loss of what is predicted, (N, K, H, W); a validation reports it."""
        label = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
        loss = self.loss_decode
        return {loss.loss_name: loss(seg_logits, label, ignore_index=self.ignore_index)}

    @property
    def loss_decode(self) -> Any:
        """``loss_refiner``, by the name that decode heads have for theirs."""
        return self.loss_refiner

    def _sample(self, image: Tensor, label: Tensor, index: int) -> Sample:
        """A random patch of a random scale of refiner ``index``.

        Of an image (1, 3, H, W) and its label (H, W).
        """
        sizes = self.sizes_of(image.shape[2:])
        if len(sizes) < 2:
            raise UserError(
                f'an image of {tuple(image.shape[2:])} pixels (h, w) is no larger than patch_size='
                f'{self.patch_size}, so that there is nothing to refine: take a smaller patch_size'
            )
        own = [s for s in range(1, len(sizes)) if self._refiner_of(s) == index]
        size = sizes[_draw(own)] if own else sizes[-1]
        (h, w), (high, wide) = self.patch_size, self.input_size
        y, x = (_draw(range(n - p + 1)) for n, p in zip(size, self.patch_size, strict=True))
        rows, columns = (
            nearest_index(n, m)[start : start + p][nearest_index(p, out)].to(label.device)
            for n, m, start, p, out in zip(
                label.shape, size, (y, x), self.patch_size, self.input_size, strict=True
            )
        )
        box = (
            x / size[1] * wide,
            y / size[0] * high,
            (x + w) / size[1] * wide,
            (y + h) / size[0] * high,
        )
        fine = cuts.cut_out(resize(image, size), [(y, x)], self.patch_size)
        return Sample(fine, (y, x), size, box, label[rows[:, None], columns][None])

    def _refiner_of(self, stage: int) -> int:
        return min(len(self.refiners), stage) - 1

    @torch.no_grad()
    def stages(self, image: Tensor) -> Iterator[Stage]:
        """What is known of an image (1, 3, H, W) after each scale, coarse to fine."""
        first, *others = self.sizes_of(image.shape[2:])[: self.inference.stages]
        probs = self.segment(resize(image, first), [(0, 0)], first)
        yield Stage(probs)
        for i, size in enumerate(others):
            before, (probs, points) = probs, self._refine_scale(image, probs, size, i + 1)
            yield Stage(probs, before, points)

    def _refine_scale(
        self, image: Tensor, probs: Tensor, size: Size, stage: int
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (1, K, h, w) brought to a scale and refined, and where (h, w)."""
        how = self.inference
        known = resize(probs, size)
        every = cuts.patch_places(size, self.patch_size, floored=self.as_released)
        places = self._chosen(known, every)
        count = how.points_of(size, len(places), len(every))
        if not count:
            return known, torch.zeros(size, dtype=torch.bool, device=known.device)
        refined = self._refine_patches(resize(image, size), known, places, stage)
        score = certainty(nearest(refined, self.input_size))
        score *= 1 - certainty(nearest(known, self.input_size))
        reached = None
        if how.n_patches is not None:
            reached = self._cover(places, size, framed=True).to(known.device) > 0
            score *= nearest(reached, self.input_size)
        score = median_filter(score[0, 0], how.smooth_kernel)
        points = select_points(score, count, size)
        if reached is not None:
            points &= reached
        return torch.where(points, refined, known, out=refined), points

    def _chosen(self, known: Tensor, every: list[Place]) -> list[Place]:
        """The patches to refine; in the order in which the released code pastes them."""
        number = self.inference.n_patches
        if number is None and not self.as_released:
            return every
        uncertainty = 1 - certainty(known)
        means = torch.cat(
            [
                cuts.windows_of(uncertainty, [place], self.patch_size, self.input_size).mean()[None]
                for place in every
            ]
        )
        order = means.sort(descending=not self.as_released, stable=True).indices
        return [every[i] for i in order[:number].tolist()]

    def _refine_patches(
        self, scaled: Tensor, known: Tensor, places: list[Place], stage: int
    ) -> Tensor:
        """The refiner's probabilities (1, K, h, w) of a scale, 0 where there is no patch.

        Args:
            scaled: The image (1, 3, h, w).
            known: Its probabilities (1, K, h, w) so far.
            places: Of the patches.
            stage: From 1 on.
        """
        refiner = self.refiners[self._refiner_of(stage)]
        size: Size = (scaled.shape[2], scaled.shape[3])
        refined = torch.zeros_like(known)

        def refine(some: list[Place]) -> Tensor:
            fine = self.segment(cuts.cut_out(scaled, some, self.patch_size), some, size)
            context = cuts.windows_of(known, some, self.patch_size, self.input_size)
            return resize(_softmax(refiner(fine, context)), self.patch_size)

        for some, results in self._in_batches(refine, places, known):
            cuts.paste(refined, some, results, overwrite=self.as_released)
        if any(n % p for n, p in zip(size, self.patch_size, strict=True)):  # patches overlap
            cover = self._cover(places, size, framed=self.as_released)
            refined /= cover.clamp(min=1).to(refined)
        return refined

    def _cover(self, places: list[Place], size: Size, *, framed: bool) -> Tensor:
        """How many patches show each pixel (h, w), without their frames or with them."""
        border = min(self.inference.border, min(self.patch_size) // 4) if framed else 0
        return cuts.inside(places, self.patch_size, size, border)

    def _in_batches(
        self, run: Callable[[list[Place]], Tensor], places: list[Place], known: Tensor
    ) -> Iterator[tuple[list[Place], Tensor]]:
        """``run`` on as many places at a time as the memory allows, with what it returns."""
        start = 0
        while start < len(places):
            some = places[start : start + self._patches_at_once(known)]
            start += len(some)
            if known.is_cuda and self._patch_bytes is None:
                torch.cuda.reset_peak_memory_stats(known.device)
                before = torch.cuda.memory_allocated(known.device)
                results = run(some)
                peak = torch.cuda.max_memory_allocated(known.device)
                self._patch_bytes = max(1, peak - before)
            else:
                results = run(some)
            yield some, results

    def _patches_at_once(self, known: Tensor) -> int:
        if not known.is_cuda:
            return max(1, CPU_PIXELS // (self.input_size[0] * self.input_size[1]))
        if self._patch_bytes is None:  # the first one is measured
            return 1
        maps = known[0, 0].numel() * self._bytes_of_pixel()
        return max(1, int(self.inference.memory_limit * MIB - maps) // self._patch_bytes)

    def _bytes_of_pixel(self) -> int:
        """What a pixel of the last scale takes: two maps, one of a quarter, and small ones."""
        return 9 * self.num_classes + 48

    def probabilities(self, image: Tensor) -> Tensor:
        """Of an image (1, 3, H, W) the probabilities (1, K, H, W) after the last scale."""
        for stage in self.stages(image):
            probs = stage.probs
        return resize(probs, (image.shape[2], image.shape[3]))

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Images (N, 3, H, W) to the logarithms of probabilities (N, K, H, W), float32."""
        images = inputs.split(1)
        return torch.cat([self.probabilities(one).clamp_(min=1e-12).log_() for one in images])

    def extract_feat(self, inputs: Tensor) -> Any:
        """The segmentor's levels of images (N, 3, H, W)."""
        return self.segmentor.extract_feat(inputs)

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """As ``encode_decode``."""
        return self.encode_decode(inputs)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Data samples with ``pred_sem_seg`` and ``seg_logits`` of images (N, 3, H, W).

        Images cut into tiles have no ``seg_logits``, which would need K times the memory.
        """
        height, width = inputs.shape[2:]
        tiles = self.tiles_of((height, width))
        if len(tiles) == 1:
            return self.postprocess_result(self.encode_decode(inputs), data_samples)
        samples = data_samples or [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs.split(1), samples, strict=True):
            label = torch.empty(height, width, dtype=torch.int16, device=inputs.device)
            for rows, columns in tiles:
                label[rows, columns] = self.probabilities(image[..., rows, columns])[0].argmax(0)
            sample.set_data(dict(pred_sem_seg=PixelData(data=_as_file(label, sample)[None])))
        return samples

    def tiles_of(self, image: Size) -> list[tuple[slice, slice]]:
        """Rows and columns of the tiles in which an image of (H, W) is predicted."""
        height, width = image
        rows = columns = 1
        if self.scales is None:
            most = self.inference.memory_limit * MIB / 2 / self._bytes_of_pixel()
            while height / rows * width / columns > max(most, 1):
                if height * columns >= width * rows:
                    rows += 1
                else:
                    columns += 1
        return [(r, c) for r in _cuts(height, rows) for c in _cuts(width, columns)]

    @torch.no_grad()
    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Probabilities and refined points of each scale of images (N, 3, H, W), at its size.

        Returns:
            ``prediction_0`` (N, K, h, w), the segmentor's probabilities of the whole image; for
            each further scale ``uncertainty_<s>`` (N, 1, h, w) in [0, 1] before it, ``points_<s>``
            (N, 1, h, w), bool, what was refined, and ``prediction_<s>``, the result.
        """
        if pixel is not None:
            raise no_single_pixels(type(self).__name__)
        found: dict[str, list[Tensor]] = {}
        for image in inputs.split(1):
            for s, stage in enumerate(self.stages(image)):
                if stage.before is not None and stage.points is not None:
                    points = stage.points[None, None]
                    unsure = 1 - certainty(resize(stage.before, (*points.shape[2:],)))
                    found.setdefault(f'uncertainty_{s}', []).append(unsure)
                    found.setdefault(f'points_{s}', []).append(points)
                found.setdefault(f'prediction_{s}', []).append(stage.probs)
        return {name: torch.cat(maps) for name, maps in found.items()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Weights of the segmentor alone, under its own names, are its; the refiner then stays."""
        own = [name for name in state_dict if name.startswith(prefix)]
        inner = f'{prefix}segmentor.'
        if own and not any(name.startswith((inner, f'{prefix}refiners.')) for name in own):
            moved = {inner + name.removeprefix(prefix): state_dict.pop(name) for name in own}
            state_dict.update(moved)
        has_segmentor = any(name.startswith(inner) for name in state_dict)
        if own and not has_segmentor and not self.is_trained:
            raise UserError(
                'the checkpoint holds a refiner without the segmentor that it was trained on: give '
                'both files to tools/convert_checkpoint.py magnet SEGMENTOR REFINER... DST'
            )
        self.is_trained |= has_segmentor
        super()._load_from_state_dict(state_dict, prefix, *args)


def _size(name: str, value: Any) -> Size:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(n, int) and n > 0 for n in value)
    ):
        raise UserError(f'{name}={value} must be (h, w) in pixels')
    return value[0], value[1]


def _softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)


def _draw(choices: Sequence[int]) -> int:
    """One of them by PyTorch's random numbers of the CPU, which a resumed run restores."""
    return choices[int(torch.randint(len(choices), ()))]


def _is_pretrained(init_cfg: Any) -> bool:
    return any(
        one.get('type') == 'Pretrained'
        for one in (init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg or {}])
    )


def _unpadded(image: Tensor, sample: SegDataSample) -> tuple[Tensor, Tensor]:
    """An image (1, 3, h, w) and its label (h, w) without what made a batch of them."""
    left, right, top, bottom = sample.metainfo.get('padding_size', (0, 0, 0, 0))
    _, height, width = image.shape
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    return image[None, :, rows, columns], sample.gt_sem_seg.data[0, rows, columns]


def _accuracy(scores: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Per cent of the valid pixels whose class has the highest of the scores (N, K, h, w)."""
    valid = label != ignore_index
    right = (scores.argmax(dim=1) == label) & valid
    return 100 * right.sum() / valid.sum().clamp(min=1)


def _cuts(length: int, count: int) -> list[slice]:
    edges = [i * length // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def _as_file(label: Tensor, sample: SegDataSample) -> Tensor:
    """Class indices (H, W) at the size of the file."""
    left, right, top, bottom = sample.metainfo.get('img_padding_size', (0, 0, 0, 0))
    label = label[top : label.shape[0] - bottom, left : label.shape[1] - right]
    return nearest(label, tuple(sample.metainfo.get('ori_shape', label.shape)[:2]))
