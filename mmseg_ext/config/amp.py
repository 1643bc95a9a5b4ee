"""Mixed precision on GPUs and CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

from mmseg_ext.errors import UserError


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast, on the device of the model.

    bfloat16 has the range of float32 and needs no loss scale. The host's ``AmpOptimWrapper`` has a
    loss scale and refuses CPUs.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def set_amp(cfg: Config, precision: str | None = None) -> None:
    """Makes a config train in mixed precision.

    Args:
        cfg: Config, changed in place.
        precision: ``bf16``, ``fp16``, or None for fp16 on a GPU and bf16 on a CPU.

    Raises:
        UserError: The precision is another one, is fp16 without a GPU, or the ``optim_wrapper`` has
            a type that is not replaced.
    """
    has_gpu = torch.cuda.is_available()
    precision = precision or ('fp16' if has_gpu else 'bf16')
    if precision not in ('bf16', 'fp16'):
        raise UserError(f'--amp {precision}: expected bf16 or fp16')
    if precision == 'fp16' and not has_gpu:
        raise UserError('--amp fp16 needs a GPU and none is visible: --amp bf16 works on CPUs')
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'Bf16OptimWrapper'):
        raise UserError(
            f'--amp replaces optim_wrapper.type=OptimWrapper, and the config has {kind}: omit --amp'
        )
    for key in ('loss_scale', 'dtype'):
        wrapper.pop(key, None)
    wrapper.type = 'Bf16OptimWrapper'
    if precision == 'fp16':
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')
