"""Check of the optimizer's state in a checkpoint before a training resumes from it."""

from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from ..checkpoints.finite import first_not_finite
from ..errors import UserError


def require_same_optimizer(
    checkpoint: str, optim_wrapper: OptimWrapper | OptimWrapperDict, saved: dict[str, Any]
) -> None:
    """Refuses a checkpoint whose optimizer cannot go on.

    Args:
        checkpoint: Path or address, for the message.
        optim_wrapper: Optimizer of the run.
        saved: Value of ``optimizer`` in the checkpoint.

    Raises:
        UserError: The optimizer is of another type, has other parameters or is not finite.
    """
    several = isinstance(optim_wrapper, OptimWrapperDict)
    wrappers = dict(optim_wrapper.items()) if several else {'': optim_wrapper}
    states = saved if several else {'': saved}
    problem: str | None = 'has other optimizers than the config'
    if wrappers.keys() == states.keys():
        pairs = ((wrapper.optimizer, states[name]) for name, wrapper in wrappers.items())
        problem = next(filter(None, (_problem(*pair) for pair in pairs)), None)
    if problem:
        raise UserError(
            f'{checkpoint} {problem}: resume with the config of its training, or start anew from '
            f'its weights by --init {checkpoint}'
        )


def _problem(optimizer: Optimizer, saved: Any) -> str | None:
    groups, state = (saved.get(key) for key in ('param_groups', 'state'))
    if not isinstance(state, dict) or _lengths(groups) != _lengths(optimizer.param_groups):
        return 'has an optimizer of other parameters than the model'
    ours, theirs = optimizer.param_groups[0].keys(), groups[0].keys()
    # A version of PyTorch may add an option, but only another optimizer adds and lacks options.
    if optimizer.defaults.keys() - theirs and theirs - ours - {'initial_lr'}:
        return f'has an optimizer of another type than {type(optimizer).__name__}'
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [number for group in groups for number in group['params']]
    for parameter, number in zip(parameters, numbers, strict=True):
        values = state.get(number, {})
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if any(x.dim() == parameter.dim() and x.shape != parameter.shape for x in tensors.values()):
            return 'has an optimizer for parameters of other shapes'
        if name := first_not_finite(tensors):
            return f'has an optimizer whose {name} is not finite'
    return None


def _lengths(groups: Any) -> list[int]:
    """Number of parameters of each group; none where the groups are of another form."""
    groups = groups if isinstance(groups, list) else []
    return [len(group['params']) for group in groups if isinstance(group, dict)]
