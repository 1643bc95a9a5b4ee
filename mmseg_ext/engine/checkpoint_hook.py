"""Checkpoints that a kill at any moment leaves whole."""

from collections import deque
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, broadcast, is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS

from mmseg_ext.host import count_accumulated_steps

from ..checkpoints.finite import first_not_finite
from ..checkpoints.write import UNFINISHED, write_atomically
from ..errors import UserError
from ..layers.unwrapping import unwrap

INTERRUPTED = 'interrupted.pth'


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files, written by ``write_atomically``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(obj, filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """``CheckpointHook`` whose newest checkpoint is always whole and always there.

    Files are written beside and renamed, and old ones go after the new one is in place. Where
    training stops early, ``interrupted.pth`` keeps what is done. Checkpoints of an earlier training
    in the same folder move to a sub-folder, and best files of another folder stay. A validation
    that was due or under way is made up for after a resume. Processes take over the main process's
    buffers, which are those in the checkpoint, before they are validated or saved. A model with
    values that are not finite is neither validated nor saved.

    Args:
        interval: Interval in epochs or iterations, as the loop counts; None for every validation.
        by_epoch: None for what the loop counts by.
        **kwargs: Arguments of ``CheckpointHook``. Remote ``backend_args`` write directly.
            ``save_best`` takes every score of the validation, ``IoU.car`` or ``val_loss`` too.

    Raises:
        UserError: Saving or validating falls between two updates of accumulated gradients,
            ``save_best`` is no score of the validation, or the model is not finite.
    """

    keep_ckpt_ids: deque[int]
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def __init__(
        self,
        interval: int | None = None,
        by_epoch: bool | None = None,
        filename_tmpl: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('backend_args', dict(backend='atomic'))
        kwargs.setdefault('greater_keys', [*self._default_greater_keys, 'IoU', 'mBF'])
        super().__init__(interval=interval or -1, by_epoch=bool(by_epoch), **kwargs)
        self.asked = interval, by_epoch, filename_tmpl
        self.saved_iter = 0

    def before_train(self, runner: Runner) -> None:
        self._follow_loop(runner)
        self.last_ckpt = runner.message_hub.get_info('last_ckpt')
        self.saved_iter = runner.iter
        super().before_train(runner)
        self._forget_other_folders()
        if is_main_process():
            for unfinished in Path(self.out_dir).glob(f'*{UNFINISHED}'):
                unfinished.unlink()
            if runner.iter == 0:
                self._keep_earlier_training(runner)
        if self._validation_is_missing(runner):
            runner.val_loop.run()

    def _keep_earlier_training(self, runner: Runner) -> None:
        """Moves the checkpoints of a training that this one would replace into a sub-folder."""
        folder = Path(self.out_dir)
        names = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', INTERRUPTED)
        files = [path for name in names for path in folder.glob(name)]
        if not files or Path(runner.work_dir).resolve() != folder.resolve():
            return
        earlier = next(f for i in count(1) if not (f := folder / f'earlier_{i}').exists())
        earlier.mkdir()
        for path in (*files, *folder.glob('last_checkpoint')):
            path.rename(earlier / path.name)
        runner.logger.warning(
            f'{folder} held another training: its checkpoints are now in {earlier}. To continue a '
            'training, give --resume.'
        )

    def _forget_other_folders(self) -> None:
        """The best files of a folder that this training resumed from or was copied from stay."""
        if self.save_best and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._in_this_folder(self.best_ckpt_path)
        elif self.save_best:
            paths = self.best_ckpt_path_dict
            self.best_ckpt_path_dict = {key: self._in_this_folder(paths[key]) for key in paths}

    def _in_this_folder(self, path: str | None) -> str | None:
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    def _follow_loop(self, runner: Runner) -> None:
        interval, by_epoch, template = self.asked
        loop = runner.train_loop
        counts_epochs = isinstance(loop, EpochBasedTrainLoop)
        self.by_epoch = counts_epochs if interval is None or by_epoch is None else by_epoch
        self.interval = loop.val_interval if interval is None else interval
        self.filename_tmpl = template or ('epoch_{}.pth' if self.by_epoch else 'iter_{}.pth')

        step = count_accumulated_steps(runner.optim_wrapper)
        saves = self.interval * (len(loop.dataloader) if self.by_epoch else 1)
        validates = loop.val_interval * (len(loop.dataloader) if counts_epochs else 1)
        for name, iterations in (('checkpoint', saves), ('validation', validates)):
            if iterations % step:
                raise UserError(
                    f'a {name} every {iterations} iterations falls between two updates of '
                    f'accumulative_counts={step}: make it a multiple'
                )

    def _validation_is_missing(self, runner: Runner) -> bool:
        loop = runner.train_loop
        if (
            runner.val_loop is None
            or runner.message_hub.get_info('newest_validation') == runner.iter
        ):
            return False
        if isinstance(loop, EpochBasedTrainLoop):
            if loop.iter != loop.epoch * len(loop.dataloader):
                return False
            done, end = loop.epoch, loop.max_epochs
        else:
            done, end = loop.iter, loop.max_iters
        due = done % loop.val_interval == 0 or done == end
        return done >= max(loop.val_begin, 1) and due

    def before_val_epoch(self, runner: Runner) -> None:
        self._share_buffers(runner)
        self._require_finite(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        runner.message_hub.update_info('newest_validation', runner.iter)
        super().after_val_epoch(runner, metrics or {})

    def _share_buffers(self, runner: Runner) -> None:
        for buffer in unwrap(runner.model).buffers():
            broadcast(buffer)

    def _require_finite(self, runner: Runner) -> None:
        """Stops all processes where a weight is not finite."""
        runner.call_hook('read_losses')  # it knows the step and its files
        names = all_gather_object(first_not_finite(unwrap(runner.model).state_dict()))
        if name := next(filter(None, names), None):
            raise UserError(
                f'{name} is not finite, so that the model is neither validated nor saved: lower '
                'the learning rate and resume from the last checkpoint'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._share_buffers(runner)
        self._require_finite(runner)
        outdated: list[int] = []
        if self.max_keep_ckpts > 0:
            kept_ids = [*(i for i in self.keep_ckpt_ids if i != step), step]
            outdated = kept_ids[: -self.max_keep_ckpts]
            kept_ids = kept_ids[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept_ids, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', kept_ids)
        self._write(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            for name in (*map(self.filename_tmpl.format, outdated), INTERRUPTED):
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)

    def _write(self, runner: Runner, name: str, meta: dict) -> None:
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        self.saved_iter = meta['iter']
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = Path(runner.work_dir, 'last_checkpoint')
            write_atomically(str(self.last_ckpt).encode(), pointer)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        """As the host does, but the previous best file goes after the new one is in place."""
        if not self.save_best:
            return
        self.check_scores(metrics)
        single = len(self.key_indicators) == 1
        before = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        if single:
            self.best_ckpt_path = None
        else:
            self.best_ckpt_path_dict = dict.fromkeys(before)
        super()._save_best_checkpoint(runner, metrics)
        after = {'': self.best_ckpt_path} if single else self.best_ckpt_path_dict
        for key, old in before.items():
            if after[key] is None:
                after[key] = old
            elif old not in (None, after[key]) and is_main_process():
                self._remove(old)
        if single:
            self.best_ckpt_path = after['']

    def check_scores(self, metrics: dict[str, float]) -> None:
        """Refuses a ``save_best`` that is not among the scores of a validation."""
        for key in self.key_indicators if self.save_best else ():
            if key not in metrics and key != 'auto':
                suggestions = get_close_matches(key, metrics) or metrics
                raise UserError(
                    f'save_best={key!r} is no score of this validation: '
                    f'did you mean {" or ".join(suggestions)}?'
                )

    @master_only
    def save_interrupted(self, runner: Runner) -> None:
        """Writes ``interrupted.pth``; called by the loops between two iterations."""
        done = f'{runner.iter} iterations are done'
        if runner.iter == self.saved_iter:
            where = f'in {self.last_ckpt}' if self.last_ckpt else 'nothing to save'
            runner.logger.warning(f'Training stopped, {done}: {where}.')
        elif not runner.optim_wrapper.should_update():
            runner.logger.warning(f'Training stopped between two updates: resume {self.last_ckpt}.')
        elif name := first_not_finite(unwrap(runner.model).state_dict()):
            runner.logger.warning(f'Training stopped, {done}, and {name} is not finite.')
        else:
            self._write(runner, INTERRUPTED, dict(epoch=runner.epoch, iter=runner.iter))
            runner.logger.warning(
                f'Training stopped, {done}; --resume continues from {self.last_ckpt}.'
            )
