"""Hooks that draw while a model trains: its curves, and its predictions on validation images."""

import gc
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.host import has_training
from mmseg_ext.inference.explain import can_explain, explain_batch
from mmseg_ext.layers.unwrapping import unwrap

from ..visualization.pictures import (
    Panel,
    class_legend,
    draw_maps,
    draw_strip,
    label_panel,
    write_picture,
)
from ..visualization.segments import draw_shapes
from ..visualization.visualizer import label_shapes, predicted_shapes
from .validation_loss import ValidationLossHook, validated_terms


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws ``curves.png`` in the work directory: losses, learning rate and a validation metric.

    It is drawn after each validation and at the end of training. The points lie beside it in
    ``curves.json``, from which a resumed run goes on. With a ``ValidationLossHook`` they have
    ``val_loss``, and ``main_loss``, the terms of the training's ``loss`` that it is to be compared
    with, where there are others.

    Args:
        interval: Iterations between two points; the loss is the mean over them.
        metric: Name of the validation score to draw.
    """

    priority = 'LOW'  # before checkpoints are saved

    def __init__(self, interval: int = 10, metric: str = 'mIoU') -> None:
        self.interval = interval
        self.metric = metric
        self.points: dict[int, dict[str, Any]] | None = None  # None: no training, nothing to draw
        self.losses: list[Tensor] = []  # each (2,), all of a step and those that validation has too

    def before_train(self, runner: Runner) -> None:
        """Takes up the earlier points of a resumed run; those after its checkpoint are repeated."""
        path = Path(runner.work_dir, 'curves.json')
        earlier = json.loads(path.read_text()) if runner.iter and path.is_file() else []
        self.points = {point['iter']: point for point in earlier if point['iter'] <= runner.iter}
        if is_main_process() and find_spec('matplotlib') is None:
            runner.logger.warning(
                'curves.png is not drawn without matplotlib: pip install matplotlib'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        logged = outputs or {}
        main = validated_terms(runner.model, logged)
        terms = [logged[name].detach() for name in ('loss', *main)]
        self.losses.append(torch.stack([terms[0], torch.stack(terms[1:] or terms).sum()]))
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            # The means stay on the device until the points are written.
            (loss, main_loss), self.losses = torch.stack(self.losses).mean(0), []
            rate = runner.message_hub.get_scalar('train/lr').current()
            comparison = dict(main_loss=main_loss) if self._compares(runner, main, logged) else {}
            self._add(runner.iter + 1, loss=loss, lr=rate, **comparison)

    def _compares(self, runner: Runner, main: list[str], logged: dict[str, Tensor]) -> bool:
        """Whether a validation has a loss, and the training's has terms that it has not."""
        unshared = [name for name in logged if 'loss' in name and name not in ('loss', *main)]
        validates = any(isinstance(hook, ValidationLossHook) for hook in runner.hooks)
        return validates and bool(main and unshared)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._save(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.points is None:
            return
        names = (self.metric, 'val_loss')
        values = {name: metrics[name] for name in names if metrics and name in metrics}
        if values:
            self._add(runner.iter, **values)
        self._draw(runner)

    def after_train(self, runner: Runner) -> None:
        self._draw(runner)

    def _add(self, iteration: int, **values: Any) -> None:
        assert self.points is not None  # before_train came first
        self.points.setdefault(iteration, {'iter': iteration}).update(values)

    def _save(self, runner: Runner) -> None:
        if self.points and is_main_process():
            for point in self.points.values():
                point.update({name: float(v) for name, v in point.items() if name != 'iter'})
            content = json.dumps(list(self.points.values()))
            write_atomically(content.encode(), Path(runner.work_dir, 'curves.json'))

    def _draw(self, runner: Runner) -> None:
        self._save(runner)
        if self.points and is_main_process() and find_spec('matplotlib') is not None:
            from ..visualization.curves import draw_curves

            path = Path(runner.work_dir, 'curves.png')
            names = (('loss', 'main_loss', 'val_loss'), 'lr', self.metric)
            draw_curves(path, list(self.points.values()), names, Path(runner.work_dir).name)
            gc.collect()  # a figure, about 5 MB, refers to itself: it would stay for long


@HOOKS.register_module()
class PicturesHook(Hook):
    """Writes ``pictures/<image>_<iteration>.png`` of the first validation images.

    Each shows the image, its label, the prediction, where they differ, and the segments of both
    where the prediction has segments. For a model with ``explain`` it also shows the maps that it
    returns (``visualization.pictures.draw_maps`` says how). The folder lies in the work directory.

    Args:
        num_images: Number of images, of those that the first process validates.
        interval: Validations from one such set to the next.
    """

    priority = 'LOW'

    def __init__(self, num_images: int = 4, interval: int = 1) -> None:
        self.num_images = num_images
        self.interval = interval
        self._validations = self._left = 0

    def before_val_epoch(self, runner: Runner) -> None:
        due = is_main_process() and self._validations % self.interval == 0
        self._left = self.num_images if due else 0
        self._validations += 1

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: list[SegDataSample] | None = None,
    ) -> None:
        samples = (outputs or [])[: self._left]
        if not samples:
            return
        self._left -= len(samples)
        model = unwrap(runner.model)
        maps: list[dict[str, Tensor]] = [{} for _ in samples]
        if can_explain(model):
            data = model.data_preprocessor(data_batch, False)
            maps = explain_batch(model, data['inputs'], data['data_samples'])
        meta = runner.val_dataloader.dataset.metainfo
        iteration = runner.iter if has_training(runner) else 0
        for sample, maps_of_one in zip(samples, maps, strict=False):
            name = f'{Path(sample.img_path).stem}_{iteration:06d}.png'
            picture = _draw_sample(sample, maps_of_one, meta)
            write_picture(Path(runner.work_dir, 'pictures', name), picture)


def _draw_sample(
    sample: SegDataSample, maps: dict[str, Tensor], meta: dict[str, Any]
) -> np.ndarray:
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    palette = meta['palette']
    prediction = sample.pred_sem_seg.data[0].cpu().long().numpy()
    panels = [Panel('input', image), label_panel('prediction', image, prediction, palette)]
    if 'gt_sem_seg' in sample:
        label = sample.gt_sem_seg.data[0].cpu().long().numpy()
        wrong = torch.from_numpy((prediction != label) & (label < len(palette)))
        panels.insert(1, label_panel('label', image, label, palette))
        panels += draw_maps({'wrong': wrong[None]}, image, palette)
    if (predicted := predicted_shapes(sample)) is not None:
        for caption, shapes in (('segments', label_shapes(sample)), ('predicted', predicted)):
            picture = draw_shapes(image, shapes or [], meta['classes'], palette, min_width=0)
            panels.append(Panel(caption, picture))
    panels += draw_maps(maps, image, palette)
    return draw_strip(panels, class_legend(panels, meta['classes'], palette))
