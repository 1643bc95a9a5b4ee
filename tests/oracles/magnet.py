"""MagNet's inference as released: patch by patch, every map at full size, every pixel sorted."""

import copy
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.magnet.patches import crop_patches, crop_windows, patch_corners, resize
from mmseg_ext.papers.magnet.points import certainty, median_filter, nearest, select_points
from mmseg_ext.segmentors.fast import make_fast

CONFIGS = Path(__file__).parents[2] / 'configs' / 'magnet'
# A CPU gets the network of the streets and a sixteenth of the pixels.
SIZES = {'cpu': (256, 512), 'cuda': (1024, 2048)}
NETWORKS = {'cpu': 'hrnet18s_ocr_streets_plain.py', 'cuda': 'hrnet18s_ocr_cityscapes_plain.py'}
SHAPE = 'four scales to 256x512 (GPU: 1024x2048), 85 patches'
TWO_SCALES = 'two scales to 256x512 (GPU: 1024x2048), 5 patches'


def certainty_released(probs: Tensor) -> Tensor:
    top = probs.topk(2, dim=1).values
    return top[:, :1] - top[:, 1:]


def median_released(x: Tensor, kernel: int) -> Tensor:
    """Of (1, 1, h, w), all windows at once."""
    columns = F.unfold(x, kernel, padding=kernel // 2)
    return columns.median(dim=1).values.view_as(x)


def most_certain_change(score: Tensor, count: int) -> Tensor:
    """Indices of the highest of (1, 1, H, W), the first of equals; all pixels are sorted."""
    return score.flatten().sort(descending=True, stable=True).indices[:count]


def sample_points(maps: Tensor, indices: Tensor) -> Tensor:
    """(1, K, H, W) at flat indices (P,), by bilinear sampling at the pixels' centres."""
    height, width = maps.shape[2:]
    y, x = (indices // width).to(maps), (indices % width).to(maps)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(maps, grid[None, None], align_corners=False)[:, :, 0]


@torch.no_grad()
def pipeline_released(model: nn.Module, image: Tensor) -> Tensor:
    """Image (1, 3, H, W) to probabilities (1, K, *last scale), with all patches of every scale."""
    first, *others = model.sizes_of(image.shape[2:])
    patch, low = model.patch_size, model.input_size
    probs = model.segment(resize(image, first), [(0, 0)], first)
    for stage, size in enumerate(others, 1):
        known, scaled = resize(probs, size), resize(image, size)
        unsure = F.interpolate(1 - certainty_released(known), size, mode='bilinear')
        places = patch_corners(size, patch)
        means = torch.stack([crop_windows(unsure, [one], patch, low).mean() for one in places])
        refined = torch.zeros_like(known)
        for i in means.argsort().tolist():
            place, (y, x) = [places[i]], places[i]
            fine = model.segment(crop_patches(scaled, place, patch), place, size)
            refiner = model.refiners[min(len(model.refiners), stage) - 1]
            result = refiner(fine, crop_windows(known, place, patch, low)).softmax(1)
            refined[..., y : y + patch[0], x : x + patch[1]] = resize(result, patch)
        count = model.inference.count_points(size, 1, 1)
        probs = replaced(known, refined, unsure, low, model.inference.smooth_kernel, count)
    return probs


def replaced(
    known: Tensor,
    refined: Tensor,
    unsure: Tensor,
    low: tuple[int, int],
    kernel: int,
    count: int,
) -> Tensor:
    """Probabilities (1, K, H, W) with the points of the highest score taken from ``refined``."""
    score = certainty_released(refined) * unsure
    score = median_released(F.interpolate(score, low), kernel)
    chosen = most_certain_change(F.interpolate(score, known.shape[2:]), count)
    known = known.clone()
    known.flatten(2)[..., chosen] = sample_points(refined, chosen)
    return known


def _make_pipeline(device: torch.device, num_scales: int = 4) -> tuple[Run, Run]:
    init_default_scope('mmseg')
    height, width = SIZES[device.type]
    cfg = Config.fromfile(CONFIGS / NETWORKS[device.type])
    scales = [(height >> i, width >> i) for i in reversed(range(num_scales))]
    model = MODELS.build(
        dict(
            type='MagNet',
            segmentor=cfg.model,
            patch_size=scales[0],
            scales=scales,
            test_cfg=dict(n_points=scales[0][0] * scales[0][1], memory_limit=32768),
        )
    )
    model = revert_sync_batchnorm(model).eval().to(device)
    for module in (model.segmentor.decode_head, model.refiners[0]):
        nn.init.normal_(module.conv_seg.weight)  # certain enough for a ranking
    image = torch.randn(1, 3, height, width, device=device)
    fast = copy.deepcopy(model)
    make_fast(fast)
    fast.predict(image)

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [fast.probabilities(image)]

    def released() -> list[Tensor]:
        return [pipeline_released(model, image)]

    return ours, released


def _make_points(device: torch.device) -> tuple[Run, Run]:
    maps = [2 * torch.randn(1, 19, 256, 512, device=device) for _ in range(2)]
    known, refined = (resize(x, (1024, 2048)).softmax(1) for x in maps)
    low, count = (128, 256), 32768

    def ours() -> list[Tensor]:
        score = certainty(nearest(refined, low)) * (1 - certainty(nearest(known, low)))
        points = select_points(median_filter(score[0, 0], 5), count, (1024, 2048))
        return [torch.where(points, refined, known)]

    def released() -> list[Tensor]:
        return [replaced(known, refined, 1 - certainty_released(known), low, 5, count)]

    return ours, released


BENCHMARKS = [
    OpBenchmark('magnet', SHAPE, _make_pipeline),
    OpBenchmark('magnet_two_scales', TWO_SCALES, partial(_make_pipeline, num_scales=2)),
    OpBenchmark('magnet_points', '19x1024x2048, 32768 points', _make_points),
]
