"""Hooks, wrappers and windows: what a Runner needs."""

from . import embeddings_hook, picture_hooks, safe_load, validation_loss  # noqa: F401
from .amp import Bf16OptimWrapper, set_amp
from .checkpoint_hook import AtomicCheckpointHook
from .distributed import init_dist_for_cpu_or_gpu
from .runner import ResumableRunner
from .runtime_info_hook import DeferredRuntimeInfoHook
from .train_data import BadSampleError

__all__ = [
    'AtomicCheckpointHook',
    'BadSampleError',
    'Bf16OptimWrapper',
    'DeferredRuntimeInfoHook',
    'ResumableRunner',
    'init_dist_for_cpu_or_gpu',
    'set_amp',
]
