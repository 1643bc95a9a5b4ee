"""A hook that draws vectors of pixels, by class."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from mmseg_ext.errors import UserError
from mmseg_ext.layers.feature_tap import FeatureTap
from mmseg_ext.layers.sizes import size_of
from mmseg_ext.layers.unwrapping import unwrap
from mmseg_ext.papers.pixel_contrast.head import PixelContrastHead
from mmseg_ext.papers.pixel_contrast.sampling import (
    by_image,
    count_cells,
    draw,
    exclusive_cumsum,
    labels_at,
    pixels_at,
)


@HOOKS.register_module()
class EmbeddingsHook(Hook):
    """Draws ``embeddings/<iteration>.png`` after a validation: vectors of pixels as points.

    A point is the vector of a pixel along the two principal axes, in the colour of its labelled
    class. For a ``PixelContrastHead`` the vectors are its unit vectors, and a second plot shows how
    full its memory was at every validation. For any other head they are the features before its
    classifier, so that models with and without contrast can be compared.

    Args:
        num_images: Number of images, of those that the first process validates.
        num_pixels: Largest number of pixels of each class in each image.
        interval: Number of validations from one picture to the next.
        tsne: Whether a further plot shows the points by t-SNE; needs scikit-learn.

    Raises:
        UserError: scikit-learn is missing, and ``tsne`` is set.
    """

    priority = 'LOW'  # before checkpoints are saved

    def __init__(
        self, num_images: int = 50, num_pixels: int = 50, interval: int = 1, tsne: bool = False
    ) -> None:
        if tsne and find_spec('sklearn') is None:
            raise UserError(
                'EmbeddingsHook has tsne=True, which needs scikit-learn: pip install scikit-learn'
            )
        self.num_images, self.num_pixels, self.interval = num_images, num_pixels, interval
        self.tsne = tsne
        self._validations = self._left = 0
        self._drawn: list[tuple[Tensor, Tensor]] = []  # vectors (P, D), labels (P,)
        self._tap: FeatureTap | None = None

    def before_train(self, runner: Runner) -> None:
        if is_main_process() and find_spec('matplotlib') is None:
            runner.logger.warning(
                'embeddings are not drawn without matplotlib: pip install matplotlib'
            )

    def before_val_epoch(self, runner: Runner) -> None:
        due = is_main_process() and self._validations % self.interval == 0
        self._left = self.num_images if due and find_spec('matplotlib') is not None else 0
        self._validations += 1
        self._drawn = []

    @torch.no_grad()
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._left <= 0:
            return
        self._left -= len(data_batch['data_samples'])
        model = unwrap(runner.model)
        data = model.data_preprocessor(data_batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        vectors = self._vectors(model, inputs, samples)
        head, size = model.decode_head, size_of(vectors)
        k = head.num_classes
        label = torch.cat(
            [labels_at(s.gt_sem_seg.data.to(vectors.device), size, k, 255) for s in samples]
        )
        cells = by_image(label, k).flatten()
        quota = count_cells(cells, len(label) * k + 1).clamp(max=self.num_pixels)
        quota[-1] = 0
        index = draw(cells, quota, exclusive_cumsum(quota), int(quota.sum()))
        points = pixels_at(vectors.float(), index).cpu()
        self._drawn.append((points, label.flatten()[index].cpu()))

    def _vectors(self, model: Any, inputs: Tensor, samples: list) -> Tensor:
        """Vectors (N, D, h, w) of images (N, 3, H, W)."""
        if isinstance(model.decode_head, PixelContrastHead):
            return model.decode_head.embed(model.extract_feat(inputs))
        if self._tap is None:
            self._tap = FeatureTap(model.decode_head)
        return self._tap(model, inputs, samples)[1]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        head, fill = unwrap(runner.model).decode_head, {}
        bank = head.bank if isinstance(head, PixelContrastHead) else None
        if bank is not None:
            # The message hub is saved in checkpoints and restored from them.
            fill = dict(runner.message_hub.get_info('bank_fill') or {})
            fill[runner.iter] = (bank.count / bank.count.new_tensor(bank.sizes)).tolist()
            runner.message_hub.update_info('bank_fill', fill)
        if not self._drawn:
            return
        from mmseg_ext.visualization.embeddings import draw_embeddings

        vectors, label = (torch.cat(tensors) for tensors in zip(*self._drawn, strict=True))
        meta = runner.val_dataloader.dataset.metainfo
        draw_embeddings(
            Path(runner.work_dir, 'embeddings', f'{runner.iter:06d}.png'),
            vectors,
            label,
            meta['classes'],
            meta['palette'],
            fill,
            bank.queues if bank is not None else (),
            with_tsne=self.tsne,
        )
