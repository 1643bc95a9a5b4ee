"""A Runner whose training can be stopped at any moment and resumed to the same weights.

All that is random in a step follows from (seed, iteration), and all that is random in a sample from
(seed, rank, place in the training): no random state needs to be saved, and neither the number of
workers nor a validation in between changes the training.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmseg.registry import RUNNERS
from torch import distributed, nn
from torch.utils.data import DataLoader

from mmseg_ext.host import seeds_ranks_apart

from ..errors import UserError
from ..layers.unwrapping import unwrap
from ..segmentors.protocols import HasLabelLimits
from .buffers import Buffers
from .distributed import init_dist_for_cpu_or_gpu
from .optimizers import keep_settings, options_only_in_the_file, require_same_optimizer, settings_of
from .schedules import resume_schedules
from .train_data import (
    BadSampleError,
    ResumableSampler,
    SeededDataset,
    end_workers,
    seed_everything,
    skip_iterations,
)

FAILED = 255  # above every signal number
STOPPING = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, 'SIGHUP'):  # a closed terminal; absent on Windows
    STOPPING.append(signal.SIGHUP)
SAMPLES = 'samples_per_iteration'  # in the message hub, and so in checkpoints


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """The host's Runner with resumable loops in place of its two training loops.

    Loops of other types are left as they are.
    """

    _train_dataloader: DataLoader | dict
    optim_wrapper: Any
    failure: Exception | None = None  # of a hook, raised when the iteration or epoch is complete

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'ResumableRunner':
        init_dist_for_cpu_or_gpu(cfg, cfg.get('launcher', 'none'))
        return super().from_cfg(cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: Any) -> nn.Module:
        if self.cfg.get('channels_last'):  # before DDP takes over the layout of the parameters
            model.to(memory_format=torch.channels_last)
        return super().wrap_model(model_wrapper_cfg, model)

    def setup_env(self, env_cfg: dict) -> None:
        super().setup_env(env_cfg)
        # Messages between processes must not wait for the GPU.
        self._messages = distributed.new_group(backend='gloo') if self.world_size > 1 else None

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls all hooks; after a training step or epoch, all of them before a failure counts."""
        if fn_name not in ('after_train_iter', 'after_train_epoch'):
            super().call_hook(fn_name, **kwargs)
            return
        for hook in self.hooks:
            try:
                getattr(hook, fn_name)(self, **kwargs)
            except UserError:  # a loss that is not finite must not be saved by the next hook
                raise
            except Exception as error:
                self.failure = self.failure or error

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        with options_only_in_the_file(self.logger):
            built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(optim_wrapper, dict):
            keys = (optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
            names = [name for name, _ in self.model.named_parameters()]
            for key in keys:
                if not any(key in name for name in names):
                    self.logger.warning(
                        f'paramwise_cfg.custom_keys.{key}: no name of a parameter contains {key}'
                    )
        return built

    def worst_of_all(self, status: int) -> int:
        """The largest status of all processes; each of them has to call this."""
        if self._messages is None:
            return status
        shared = torch.tensor(status)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=self._messages)
        return int(shared)

    def samples_per_iteration(self) -> int:
        """Number of samples in the batches of all processes."""
        return self.train_dataloader.batch_sampler.batch_size * self.world_size

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        if not isinstance(loop, dict):
            return super().build_train_loop(loop)
        cfg = dict(loop)
        default = 'EpochBasedTrainLoop' if cfg.pop('by_epoch', True) else 'IterBasedTrainLoop'
        loop_type = LOOPS.get(cfg.pop('type', default))
        if loop_type is None or not isinstance(self._train_dataloader, dict):
            return super().build_train_loop(loop)
        self._train_dataloader = self._build_train_dataloader(
            self._train_dataloader, endless=loop_type is ResumableIterLoop
        )
        if loop_type is ResumableEpochLoop and len(self._train_dataloader) == 0:
            images = len(self._train_dataloader.sampler)  # type: ignore[arg-type]
            raise UserError(
                f'an epoch has {images} images for each process, less '
                f'than a batch of {self._train_dataloader.batch_size}: lower '
                'train_dataloader.batch_size or add images'
            )
        return loop_type(runner=self, dataloader=self._train_dataloader, **cfg)

    def _build_train_dataloader(self, cfg: dict, *, endless: bool) -> DataLoader:
        cfg = dict(cfg)
        length = cfg.pop('num_batch_per_epoch', None)
        batch_size = cfg.get('batch_size', 1)  # a batch sampler may have its own
        plain = self.build_dataloader(
            dict(
                dataset=cfg['dataset'],
                sampler=cfg['sampler'],
                batch_size=batch_size,
                num_batch_per_epoch=length,
            ),
            seed=self.seed,
            diff_rank_seed=seeds_ranks_apart(self),
        )
        self._describe_data(plain.dataset)
        model = unwrap(self.model)
        limits = model.label_limits if isinstance(model, HasLabelLimits) else None
        cfg['dataset'] = SeededDataset(plain.dataset, self.seed, limits)
        cfg['sampler'] = ResumableSampler(plain.sampler, endless=endless)
        return self.build_dataloader(cfg, seed=self.seed)

    def _describe_data(self, dataset: Any) -> None:
        """Tells the model the metainfo of a data set, as ``init_model`` of the host does."""
        unwrap(self.model).dataset_meta = getattr(dataset, 'metainfo', None)

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        built = super().build_test_loop(loop)
        self._describe_data(built.dataloader.dataset)
        return built

    def train(self) -> nn.Module:
        with self._ending_workers():
            return super().train()

    def val(self) -> dict[str, float]:
        with self._ending_workers():
            return super().val()

    def test(self) -> dict[str, float]:
        with self._ending_workers():
            return super().test()

    @contextmanager
    def _ending_workers(self) -> Iterator[None]:
        """Ends the workers of all loaders, also after an error.

        The garbage collector would close the queues before their owner sends the last message, and
        each worker would wait 5 s for it.
        """
        try:
            yield
        finally:
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                end_workers(getattr(loop, 'dataloader', None))
            if isinstance(self._train_loop, ResumableIterLoop):
                self._train_loop.dataloader_iterator.batches = None

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(*args, **kwargs)
        self._saved_schedules = checkpoint.get('param_schedulers')
        self._saved_optimizer = checkpoint.get('optimizer')
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'default',
    ) -> None:
        super().resume(filename, False, False, map_location)
        starts_anew = False
        if resume_optimizer and self._saved_optimizer is not None:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            require_same_optimizer(filename, self.optim_wrapper, self._saved_optimizer)
            settings = settings_of(self.optim_wrapper)
            self.optim_wrapper.load_state_dict(self._saved_optimizer)
            starts_anew = keep_settings(self, settings)
        if resume_param_scheduler and self.param_schedulers and self._saved_schedules is not None:
            resume_schedules(self, None if starts_anew else self._saved_schedules)
        loader = self.train_dataloader
        if isinstance(loader.sampler, ResumableSampler):  # the run's seed, whatever the config says
            before, now = self.message_hub.get_info(SAMPLES), self.samples_per_iteration()
            if before not in (None, now):
                raise UserError(
                    f'{filename} comes from a training with {before} images per iteration, and '
                    f'this run has {now}: resume with the same train_dataloader.batch_size times '
                    f'the number of processes, or start anew from its weights by --init {filename}'
                )
            loader.dataset.seed = self.seed
            if not seeds_ranks_apart(self):
                loader.sampler.set_seed(self.seed)


class _Resumable(BaseLoop):
    """Seeds for both loops of the host, and a common stop that leaves a checkpoint.

    Ctrl-C, SIGTERM (from a scheduler or torchrun) and SIGHUP (from a terminal that is closed) take
    effect between two iterations, or at once during validation or when Ctrl-C is pressed twice. A
    sample that cannot be loaded stops all processes before the same iteration. Then, when a hook
    fails after a step, and when a step fails before it has changed a parameter, the hooks are
    called with ``save_interrupted``.
    """

    _iter: int
    started: int | None = None  # the iterations that were done before

    def run(self) -> nn.Module:
        self.started = self._iter
        self.phase = ''
        self.signal = 0
        self.agreed = False
        self.buffers = Buffers(self.runner.model)
        self.runner.message_hub.update_info(SAMPLES, self.runner.samples_per_iteration())
        with self._signals():
            try:
                model = super().run()  # type: ignore[safe-super]
                self._raise_failure()
                return model
            except BaseException:
                self.phase, phase = 'rescue', self.phase
                self._rescue(phase)
                if self.signal:  # it ends the workers too, and PyTorch raises that anywhere
                    self._stop(self.signal)
                raise

    def fetch(self, batches: Iterator) -> Any:
        """The next batch, once every process has one.

        Raises:
            BadSampleError: a sample cannot be loaded.
            RuntimeError: another process stopped.
            KeyboardInterrupt, SystemExit: a signal came.
        """
        self.phase = 'fetch'
        try:
            batch = next(batches)
        except Exception as error:
            self._agree(FAILED)
            if isinstance(error, BadSampleError):  # leave out the worker's traceback
                raise BadSampleError(error.sentence) from error
            raise
        verdict = self._agree(self.signal)
        if verdict == FAILED:
            raise UserError('another process has stopped: see its message')
        if verdict:
            self._stop(verdict)
        return batch

    def run_iter(self, *args: Any) -> None:
        seed_everything(self.runner.seed, self._iter)
        self.buffers.remember()
        self.counts_before = self._counts()
        self.phase = 'step'
        super().run_iter(*args)  # type: ignore[misc]
        self.phase = ''
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raises the failure of a hook, between two iterations, where nothing is lost."""
        failure, self.runner.failure = self.runner.failure, None
        if failure is not None:
            self.phase = 'fetch'
            raise failure

    def _agree(self, status: int) -> int:
        verdict = self.runner.worst_of_all(status)
        self.agreed = verdict > 0
        return verdict

    def _counts(self) -> list[int]:
        """Number of gradients that each optimiser saw, counted after backward, before its step."""
        wrapper = self.runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        return [w.inner_count for w in wrappers]

    def _rescue(self, phase: str) -> None:
        validating = self.runner.message_hub.get_info('loop_stage') == 'val'
        averaged = any(isinstance(hook, EMAHook) for hook in self.runner.hooks)
        if phase == 'step' and self._counts() == self.counts_before:
            self.buffers.restore()
        elif phase != 'fetch' and (not validating or averaged):
            self.runner.logger.error(
                'Training stopped within an iteration: --resume continues from the last checkpoint.'
            )
            return
        self.runner.call_hook('save_interrupted')
        if self.agreed:  # else a process that ends makes torchrun stop the one that saves
            self.runner.worst_of_all(0)

    def _stop(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only it may handle signals
            yield
            return

        process = os.getpid()

        def note(number: int, frame: Any) -> None:
            if os.getpid() != process or self.phase == 'rescue':  # a data worker, or it is saving
                return
            twice = number == signal.SIGINT == self.signal
            self.signal = number
            if twice or self.runner.message_hub.get_info('loop_stage') == 'val':
                self._stop(number)

        # What is ignored, as SIGHUP under nohup, stays ignored.
        numbers = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that also resumes within an epoch."""

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        skip_iterations(self.dataloader, start)
        batches = iter(self.dataloader)
        for index in range(start, len(self.dataloader)):
            self.run_iter(index, self.fetch(batches))
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self._raise_failure()


class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that skips to its place without loading, with any sampler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = _Batches(self)


class _Batches:
    """The endless batches of a loop, in the shape that the host's loop asks for."""

    def __init__(self, loop: ResumableIterLoop) -> None:
        self.loop = loop
        self.batches: Iterator | None = None

    def skip_iter(self, iterations: int) -> None:
        skip_iterations(self.loop.dataloader, iterations)

    def __next__(self) -> Any:
        if self.batches is None:
            self.batches = iter(self.loop.dataloader)
        return self.loop.fetch(self.batches)


LOOPS: dict[str, type] = {
    'EpochBasedTrainLoop': ResumableEpochLoop,
    'IterBasedTrainLoop': ResumableIterLoop,
}
