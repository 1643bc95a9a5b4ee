"""The loss of what validation predicts, to be read beside the training's."""

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.models import BaseSegmentor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..layers.feature_tap import WrapperHead
from ..layers.unwrapping import unwrap
from ..segmentors.protocols import HasPredictionLoss

FUSED = 'pam_cam.'  # the host's DAHead has three logits and predicts these


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Adds ``val_loss`` to the scores of a validation, also for ``save_best='val_loss'``.

    It is the decode head's ``loss_decode`` of the logits that are scored, whole images after
    windows, resizing and mixing of scales; the mean of all images. What only training has is not
    in it: auxiliary logits, contrast, reconstruction, edges. It takes no forward pass, but memory
    like another one or two of an image's logits. ``CurvesHook`` draws it beside the same terms of
    the training.

    A model without decode head has this loss where it is a ``HasPredictionLoss`` of
    ``segmentors/protocols.py``. Images that are predicted without logits have no such loss.
    """

    priority = 'HIGHEST'  # before the hooks that log scores or save by them

    def __init__(self) -> None:
        self.losses: list[float] = []

    def before_val_epoch(self, runner: Runner) -> None:
        self.losses = []

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: list[SegDataSample] | None = None,
    ) -> None:
        owner, _ = predicting_part(runner.model)
        for sample in outputs or []:
            self.losses.append(float('nan') if owner is None else prediction_loss(owner, sample))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        gathered = all_gather_object(self.losses)
        images = chain.from_iterable(zip_longest(*gathered, fillvalue=float('nan')))
        # The sampler fills up the last round of the processes with images that were there before.
        losses = np.array(list(images)[: len(runner.val_dataloader.dataset)])
        if metrics is not None and not np.isnan(losses).all():
            metrics['val_loss'] = float(np.nanmean(losses))


def predicting_part(model: nn.Module) -> tuple[Any, str]:
    """The part that has the loss of a model's prediction, or None, and the prefix of its terms."""
    plain: Any = unwrap(model)
    if not (isinstance(plain, BaseSegmentor) and plain.with_decode_head):
        return (plain if isinstance(plain, HasPredictionLoss) else None), ''
    head: Any = plain.decode_head
    prefix = 'decode.'
    if isinstance(head, nn.ModuleList):
        prefix = f'decode_{len(head) - 1}.'
        head = head[-1]
    if isinstance(head, WrapperHead):
        head = head.head
    return (head if isinstance(head, BaseDecodeHead) else None), prefix


def prediction_loss(owner: Any, sample: SegDataSample) -> float:
    """The loss of the ``seg_logits`` (K, H, W) of a sample with a label (1, H, W), else NaN."""
    if 'seg_logits' not in sample or 'gt_sem_seg' not in sample:
        return float('nan')
    logits = sample.seg_logits.data[None]
    if logits.shape[1] == 1:  # the host has made a probability of it
        logits = logits.logit(eps=1e-6)
    if isinstance(owner, BaseDecodeHead):  # its own method may want what only training has
        losses = BaseDecodeHead.loss_by_feat(owner, logits, [sample])
    else:
        losses = owner.loss_by_feat(logits, [sample])
    return sum(value.item() for name, value in losses.items() if 'loss' in name)


def validated_terms(model: nn.Module, logged: dict[str, Tensor]) -> list[str]:
    """The terms of a training step that ``val_loss`` has too, by their names in the log."""
    owner, prefix = predicting_part(model)
    if owner is None:
        return []
    losses = owner.loss_decode
    modules: Iterable[Any] = losses if isinstance(losses, nn.ModuleList) else [losses]
    loss_names = {module.loss_name for module in modules}
    names = [name.removeprefix(prefix) for name in logged if name.startswith(prefix)]
    return [prefix + name for name in names if name.removeprefix(FUSED) in loss_names]
