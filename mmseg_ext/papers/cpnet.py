"""CPNet: Context Prior for Scene Segmentation.

Yu, Wang, Gao, Yu, Shen, Sang, CVPR 2020, arXiv 2004.01547.
Code: ycszen/ContextPrior (no licence; nothing is taken from it).

Differs from it:

- images of any size: the released head stops unless its features have the prior's size. Here the
  cells of the prior are features resampled to its grid, which changes nothing at the prior's size;
- the context of other classes is the mean feature less the context of the own class, which saves a
  product and a matrix of all pairs; prediction holds the prior of a few pixels at a time;
- the affinity loss sums over blocks of pairs, in place of ten matrices of all pairs, and works on
  logits: where the released sigmoid rounds to 0 or 1, ours has the exact value;
- training works on a CPU and with one image.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import UserError

Size = tuple[int, int]  # (h, w)
PAIRS = 2**20  # of pixels and cells that the loss works on at a time: they fit a CPU's cache
IGNORED, HIDDEN = -1, -2  # classes of ignored pixels, and of cells that no sum counts


def class_ids(label: Tensor, size: Size, ignore_index: int = 255) -> Tensor:
    """Labels (N, h, w) of any size at the positions of a map of ``size``: (N, L), or IGNORED."""
    label = F.interpolate(label[:, None].float(), size, mode='nearest').flatten(1).long()
    return label.masked_fill(label == ignore_index, IGNORED)


def _blocks(
    logits: Tensor, cells: Tensor, pixels: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A few cells, their logits (N, k, L), and which of their pairs are of one class, as bool."""
    step = max(1, PAIRS // (logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], step):
        block = slice(start, start + step)
        yield block, logits[:, block], cells[:, block, None] == pixels[:, None]


def _diagonal(pairs: Tensor, block: slice) -> Tensor:
    """The pairs of a pixel with its own cell, of a block (N, k, L)."""
    return pairs[:, :, block].diagonal(dim1=1, dim2=2)


class _PixelSums(torch.autograd.Function):
    """Sums over the cells of each pixel, and their gradient, in one pass over the logits each.

    Takes logits (N, K, L), the classes of cells (N, K) and of pixels (N, L), and whether both are
    the same positions, and returns four sums (N, L): of P over the other cells of the pixel's
    class, of P over all the rest, of 1 - P over the cells of other classes, and the binary cross
    entropy of all cells. Each is a sum of its own terms: differences of sums would cancel.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, cells: Tensor, pixels: Tensor, square: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, cells, pixels)
        ctx.square = square
        own, rest, off, entropy = logits.new_zeros(4, *pixels.shape)
        for block, z, same in _blocks(logits, cells, pixels):
            entropy += F.softplus(torch.where(same, -z, z)).sum(1)
            probs = z.sigmoid()
            near = same | (cells[:, block, None] == HIDDEN)
            off += (1 - probs).masked_fill_(near, 0).sum(1)
            mates = torch.where(same, probs, 0)
            if square:
                _diagonal(mates, block).zero_()
            own += mates.sum(1)
            rest += probs.sub_(mates).sum(1)
        return own, rest, off, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        logits, cells, pixels = ctx.saved_tensors
        own, rest, off, entropy = (grad[:, None] for grad in grads)
        result = torch.empty_like(logits)
        for block, z, same in _blocks(logits, cells, pixels):
            probs = z.sigmoid()
            slope = torch.where(same, own, rest - off)
            if ctx.square:
                _diagonal(slope, block).copy_(rest[:, 0, block])
            slope.mul_(1 - probs).add_(entropy).mul_(probs)  # P (1 - P) slope + P entropy
            torch.sub(slope, torch.where(same, entropy, 0), out=result[:, block])
        return result, None, None, None


def affinity_terms(
    prior: Tensor,
    label: Tensor,
    grid: Size,
    *,
    ignore_index: int = 255,
    ignore: str = 'class',
    degenerate: str = 'legacy',
) -> dict[str, Tensor]:
    """How far the prior is from the affinity: 1 where pixel and cell have one class, else 0.

    The matrix of the affinity is never made. ``AffinityLoss`` explains the options.

    Args:
        prior: (N, K, H, W), logits of the prior P: for each of the L = H * W pixels its K cells.
        label: (N, h, w) of any size, classes or ``ignore_index``.
        grid: The cells' rows and columns, K = rows * columns. Where it is H x W, a pixel does not
            count as a mate of its own class.
        ignore_index: The label of ignored pixels.
        ignore: 'class' or 'mask'.
        degenerate: 'legacy' or 'skip'.

    Returns:
        ``unary``, ``recall``, ``specificity`` and ``precision``: scalars, at least float32.
    """
    size = (prior.shape[2], prior.shape[3])
    square = size == tuple(grid)
    logits = prior.flatten(2).to(torch.promote_types(prior.dtype, torch.float32))
    pixels, cells = (class_ids(label, s, ignore_index) for s in (size, grid))
    masked = ignore == 'mask'
    asked = pixels != IGNORED if masked else torch.ones_like(pixels, dtype=torch.bool)
    if masked:
        cells = torch.where(cells == IGNORED, HIDDEN, cells)
        logits = logits.masked_fill((cells == HIDDEN)[..., None], -torch.inf)  # P = 0, no entropy
    own, rest, off, entropy = _PixelSums.apply(logits, cells, pixels, square)

    ranked = cells.sort(1).values
    mates = torch.searchsorted(ranked, pixels, right=True) - torch.searchsorted(ranked, pixels)
    counted = (cells != HIDDEN).sum(1, keepdim=True)  # (N, 1)
    strangers = counted - mates  # (N, L), cells of another class
    mates = mates - 1 if square else mates
    total = own + rest
    rates = dict(
        recall=own / mates.clamp(min=1),
        specificity=off / strangers.clamp(min=1),
        precision=own / torch.where(total == 0, 1, total),
    )
    defined = dict(recall=mates > 0, specificity=strangers > 0, precision=mates > 0)
    terms = dict(unary=(entropy * asked).sum() / (asked * counted).sum().clamp(min=1))
    for name, rate in rates.items():
        kept = asked & defined[name] if degenerate == 'skip' else asked
        with torch.autocast(rate.device.type, enabled=False):  # which refuses this function
            # clamps the logarithm at -100, with the gradient 0 where the rate is a constant 0
            minus_log = F.binary_cross_entropy(rate, torch.ones_like(rate), reduction='none')
        terms[name] = (minus_log * kept).sum() / kept.sum().clamp(min=1)
    return terms


@MODELS.register_module()
class AffinityLoss(nn.Module):
    """Trains the prior: cross entropy of the pairs, recall, specificity, precision of each pixel.

    The paper's affinity loss as released: unlike in the paper, the pair of a pixel with itself is
    left out of recall and of precision's numerator.

    Args:
        ignore: 'class' as released: ignored pixels are one more class, and train the prior. 'mask'
            leaves them out, as pixels and as cells.
        degenerate: 'legacy' as released: a pixel without a mate in its class adds 100 to recall and
            precision, one without a stranger adds 100 to specificity, all without a gradient.
            'skip' takes the means over the other pixels.
        loss_weight: Factor of the sum.
        loss_name: Key in the log; has to contain "loss" to be trained.

    Raises:
        ValueError: an option is none of these.
    """

    def __init__(
        self,
        *,
        ignore: str = 'class',
        degenerate: str = 'legacy',
        loss_weight: float = 1.0,
        loss_name: str = 'loss_prior',
    ) -> None:
        super().__init__()
        if ignore not in ('class', 'mask') or degenerate not in ('legacy', 'skip'):
            raise UserError(
                f"AffinityLoss got ignore='{ignore}', degenerate='{degenerate}': ignore is 'class' "
                "or 'mask', degenerate is 'legacy' or 'skip'"
            )
        self.options = dict(ignore=ignore, degenerate=degenerate)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, prior: Tensor, label: Tensor, grid: Size, ignore_index: int = 255
    ) -> dict[str, Tensor]:
        """The four terms and, under ``loss_name``, their weighted sum; as ``affinity_terms``."""
        terms = affinity_terms(prior, label, grid, ignore_index=ignore_index, **self.options)
        logged = {f'prior_{name}': term.detach() for name, term in terms.items()}
        return logged | {self.loss_name: self.loss_weight * torch.stack([*terms.values()]).sum()}


class Aggregation(BaseModule):
    """Features of a wide neighbourhood: 3x3 convolution, then two orders of a row and a column.

    The two orders differ by their weights, and near the border by the bias between them.

    Args:
        in_channels: Channels of the features.
        channels: Channels of the result.
        kernel_size: Length of rows and columns, odd.
        **layers: ``conv_cfg``, ``norm_cfg`` and ``act_cfg`` of the convolutions.

    Raises:
        ValueError: ``kernel_size`` is even.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int = 11, **layers: Any
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(
                f'am_kernel_size={kernel_size} has no centre: take {kernel_size - 1} or '
                f'{kernel_size + 1}'
            )
        self.reduce_conv = ConvModule(in_channels, channels, 3, padding=1, **layers)
        column, row = (kernel_size, 1), (1, kernel_size)
        self.t1, self.t2, self.p1, self.p2 = (
            ConvModule(
                channels,
                channels,
                shape,
                padding=(shape[0] // 2, shape[1] // 2),
                groups=channels,
                conv_cfg=layers.get('conv_cfg'),
                act_cfg=None,
            )
            for shape in (column, row, row, column)
        )
        self.norm = build_norm_layer(layers['norm_cfg'], channels)[1]
        self.activate = MODELS.build(layers.get('act_cfg') or dict(type='ReLU'))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H, W)."""
        x = self.reduce_conv(x)
        return self.activate(self.norm(self.t2(self.t1(x)) + self.p2(self.p1(x))))


def resample(x: Tensor, size: Size) -> Tensor:
    """(N, C, H, W) to (N, C, h, w): means on an axis that shrinks, bilinear on one that grows."""
    if x.shape[2:] == size:
        return x
    smaller = (min(x.shape[2], size[0]), min(x.shape[3], size[1]))
    x = F.adaptive_avg_pool2d(x, smaller)
    return F.interpolate(x, size, mode='bilinear', align_corners=False)


@MODELS.register_module()
class CPNetHead(BaseDecodeHead):
    """Adds to each pixel the features of its own class and of all others, told by a learned prior.

    The prior of a pixel is, for every cell of a fixed grid, the probability that the cell has the
    pixel's class. ``AffinityLoss`` trains it.

    Args:
        in_channels: Channels of the features.
        channels: Width before the classifier.
        prior_channels: Width of the aggregated features (C).
        prior_size: Rows and columns of the grid, or both as one number: the size of the features of
            a training crop. At another size the cells are features resampled to the grid.
        am_kernel_size: Length of the aggregation's rows and columns, odd.
        groups: Of the convolution that gives the prior.
        key_mode: 'resample', or 'strict' to refuse features that do not have the prior's size.
        pixels_at_once: Pixels of an image whose prior prediction holds at a time.
        dropout_ratio: Drops whole channels of the features before the classifier.
        loss_prior: Loss of the prior.
        **kwargs: As for the host's ``BaseDecodeHead``; its cross entropy is the released one, which
            divides by the ignored pixels too.

    Raises:
        ValueError: an even ``am_kernel_size``, ``groups`` that do not divide ``prior_channels`` and
            the number of cells, or an unknown ``key_mode``.
    """

    host_counterpart = dict(type='PSPHead')

    def __init__(
        self,
        in_channels: int | Sequence[int],
        channels: int = 512,
        *,
        prior_channels: int = 512,
        prior_size: int | Size = 64,
        am_kernel_size: int = 11,
        groups: int = 1,
        key_mode: str = 'resample',
        pixels_at_once: int = 1024,
        dropout_ratio: float = 0.1,
        loss_prior: dict | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = dict(norm_cfg=dict(type='BN')) | kwargs
        super().__init__(in_channels, channels, dropout_ratio=dropout_ratio, **kwargs)
        rows, columns = (prior_size,) * 2 if isinstance(prior_size, int) else prior_size
        cells = rows * columns
        if prior_channels % groups or cells % groups:
            raise UserError(
                f'groups={groups} must divide prior_channels={prior_channels} and the '
                f'{rows} x {columns} = {cells} cells of prior_size'
            )
        if key_mode not in ('resample', 'strict'):
            raise UserError(f"key_mode='{key_mode}' is unknown: take 'resample' or 'strict'")
        self.prior_size = (rows, columns)
        self.strict = key_mode == 'strict'
        self.pixels_at_once = pixels_at_once
        layers = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.aggregation = Aggregation(self.in_channels, prior_channels, am_kernel_size, **layers)
        self.prior_conv = ConvModule(
            prior_channels, cells, 1, groups=groups, **dict(layers, act_cfg=None)
        )
        self.intra_conv = ConvModule(prior_channels, prior_channels, 1, **layers)
        self.inter_conv = ConvModule(prior_channels, prior_channels, 1, **layers)
        width = self.in_channels + 2 * prior_channels
        self.bottleneck = ConvModule(width, channels, 3, padding=1, **layers)
        self.loss_prior = MODELS.build(loss_prior or dict(type='AffinityLoss'))

    def forward(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Levels to logits (N, K, H, W), in training with the prior's logits (N, cells, H, W)."""
        x = self._transform_inputs(inputs)
        intra, inter, prior = self.contexts(self.aggregation(x))
        feats = torch.cat([x, self.intra_conv(intra), self.inter_conv(inter)], dim=1)
        logits = self.cls_seg(self.bottleneck(feats))
        return logits if prior is None else (logits, prior)

    def contexts(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sums of features over the cells, weighted by the prior and by its complement.

        Args:
            values: Aggregated features (N, C, H, W).

        Returns:
            The contexts of the own class and of the others, (N, C, H, W) each, divided by the
            number of cells; in training also the prior's logits (N, cells, H, W).

        Raises:
            ValueError: the sizes differ and ``key_mode`` is 'strict'.
        """
        n, c, h, w = values.shape
        if self.strict and (h, w) != self.prior_size:
            raise UserError(
                f'features of {h} x {w} do not fit prior_size={self.prior_size}: use crops of '
                "that many strides, or key_mode='resample'"
            )
        cells = resample(values, self.prior_size).flatten(2)  # (N, C, cells)
        prior = None
        if self.training:
            prior = self.prior_conv(values)
            intra = cells @ prior.flatten(2).sigmoid()
        else:
            parts = values.flatten(2)[..., None].split(self.pixels_at_once, dim=2)
            priors = (self.prior_conv(part).flatten(2).sigmoid() for part in parts)
            intra = torch.cat([cells @ prior for prior in priors], dim=2)
        intra = intra.view(n, c, h, w) / cells.shape[2]
        return intra, cells.mean(2)[..., None, None] - intra, prior

    def loss_by_feat(self, seg_logits: tuple[Tensor, Tensor], batch_data_samples: list) -> dict:
        """Losses of the logits (N, K, h, w), of any size, and of the prior's logits."""
        logits, prior = seg_logits
        losses = super().loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        return losses | self.loss_prior(prior, label, self.prior_size, self.ignore_index)

    @torch.no_grad()
    def explain(
        self,
        levels: list[Tensor],
        *,
        point: tuple[float, float] | None = None,
        label: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What a pixel takes for its own class, or what all pixels gather.

        Args:
            levels: As for ``forward``.
            point: The pixel's (x, y), as fractions of width and height in [0, 1).
            label: Classes (N, 1, h, w) of any size.

        Returns:
            With a point ``prior`` (N, 1, *prior_size) in [0, 1] and, with a label too,
            ``true_affinity``, bool; else ``intra_context`` and ``inter_context`` (N, C, H, W).
        """
        values = self.aggregation(self._transform_inputs(levels))
        if point is None:
            intra, inter, _ = self.contexts(values)
            return dict(intra_context=intra, inter_context=inter)
        h, w = values.shape[2:]
        row, column = int(point[1] * h), int(point[0] * w)
        prior = self.prior_conv(values[:, :, row, column, None, None]).sigmoid()
        maps = dict(prior=prior.reshape(-1, 1, *self.prior_size))
        if label is not None:
            pixels, cells = (
                class_ids(label[:, 0], size, self.ignore_index)
                for size in ((h, w), self.prior_size)
            )
            same = cells == pixels[:, row * w + column, None]
            maps['true_affinity'] = same.view(-1, 1, *self.prior_size)
        return maps
