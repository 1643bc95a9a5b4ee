"""Canny's edges of images on any device, equal to OpenCV's in every pixel."""

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 16  # steps of growing between two tests for a change, which wait for the device
TAN_22_5, TAN_67_5 = 13573, 13573 + 2**16  # in OpenCV's fixed point
POINT = 2**15


def canny_by_opencv(images: Tensor, low: int, high: int) -> Tensor:
    """Canny's edges as from ``canny_on_device``, by OpenCV on the CPU."""
    arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    edges = [torch.from_numpy(cv2.Canny(array, low, high) > 0) for array in arrays]
    return torch.stack(edges)[:, None].to(images.device)


def canny_on_device(images: Tensor, low: int, high: int) -> Tensor:
    """Canny's edges: ridges of Sobel's gradient that are connected to a strong pixel.

    The gradient of a pixel is that of the channel where |gx| + |gy| is largest.

    Args:
        images: Images (N, C, H, W), uint8.
        low: Value that |gx| + |gy| exceeds at every pixel of an edge.
        high: Value that |gx| + |gy| exceeds at a strong pixel, where an edge starts.

    Returns:
        Edges (N, 1, H, W), bool.
    """
    gx, gy = _strongest_gradient(images)
    magnitude = gx.abs() + gy.abs()
    candidate = _is_ridge(magnitude, gx, gy) & (magnitude > low)
    edges = candidate & (magnitude > high)
    while True:
        before = edges
        for _ in range(ROUNDS):
            edges = (F.max_pool2d(edges.float(), 3, stride=1, padding=1) > 0) & candidate
        if torch.equal(edges, before):
            return edges


def _strongest_gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's derivatives (N, 1, H, W), int32, of the channel that changes most."""
    x = F.pad(images.float(), (1, 1, 1, 1), mode='replicate').int()
    rows = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    columns = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    gx = rows[..., 2:] - rows[..., :-2]
    gy = columns[..., 2:, :] - columns[..., :-2, :]
    channel = (gx.abs() + gy.abs()).argmax(1, keepdim=True)  # the first of equal ones
    return gx.gather(1, channel), gy.gather(1, channel)


def _is_ridge(magnitude: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Pixels whose magnitude is above that of both neighbours across the edge.

    Where two neighbours on a horizontal or vertical line are equal, the first is the ridge.
    """
    padded = F.pad(magnitude, (1, 1, 1, 1))
    h, w = magnitude.shape[2:]

    def at(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    steepness, flatness = gy.abs() * POINT, gx.abs()
    horizontal = steepness < TAN_22_5 * flatness
    vertical = steepness > TAN_67_5 * flatness
    across = (magnitude > at(0, -1)) & (magnitude >= at(0, 1))
    down = (magnitude > at(-1, 0)) & (magnitude >= at(1, 0))
    falling = (magnitude > at(-1, -1)) & (magnitude > at(1, 1))
    rising = (magnitude > at(-1, 1)) & (magnitude > at(1, -1))
    diagonal = torch.where((gx < 0) == (gy < 0), falling, rising)
    return torch.where(horizontal, across, torch.where(vertical, down, diagonal))


@torch.library.custom_op('mmseg_ext::canny', mutates_args=())
def canny(images: Tensor, low: int, high: int) -> Tensor:
    """Canny's edges by ``canny_on_device``, on a CPU by OpenCV; a single operation in graphs."""
    return canny_on_device(images, low, high)


@canny.register_kernel('cpu')
def _(images: Tensor, low: int, high: int) -> Tensor:
    return canny_by_opencv(images, low, high)


@canny.register_fake
def _(images: Tensor, low: int, high: int) -> Tensor:
    return images.new_empty((len(images), 1, *images.shape[2:]), dtype=torch.bool)
