"""Training, testing and the dry run: the Runner, its loops, hooks and data order."""

from mmseg_ext.config.amp import Bf16OptimWrapper, set_amp

from ..checkpoints import safe_load  # noqa: F401
from . import picture_hooks, validation_loss  # noqa: F401
from .checkpoint_hook import AtomicCheckpointHook
from .distributed import init_dist_for_cpu_or_gpu
from .early_logger_hook import EarlyLoggerHook
from .runner import ResumableRunner
from .runtime_info_hook import DeferredRuntimeInfoHook
from .schedules import PolyLRToEnd
from .train_data import BadSampleError
from .undecayed_norms import UndecayedNormsConstructor

__all__ = [
    'AtomicCheckpointHook',
    'BadSampleError',
    'Bf16OptimWrapper',
    'DeferredRuntimeInfoHook',
    'EarlyLoggerHook',
    'PolyLRToEnd',
    'ResumableRunner',
    'UndecayedNormsConstructor',
    'init_dist_for_cpu_or_gpu',
    'set_amp',
]
