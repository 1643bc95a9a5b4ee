"""Reading a checkpoint from a file or an address, without running code from it."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader

from ..errors import UserError
from .safe_load import TRUST, UNREADABLE, is_saved_by_torch, is_trusting, load_file, without_code

NO_CHECKPOINT = 'is damaged or no checkpoint of PyTorch: give another file'

MORE_THAN_TENSORS = (
    'holds objects that only code from the file can restore: give a file with its state_dict alone '
    f'or, if you trust where it comes from, set {TRUST}=1'
)


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """All that a checkpoint (a path or an address) holds, on the CPU.

    Raises:
        UserError: it cannot be fetched.
        UserError: the file is no checkpoint, or reading it would run code from it.
    """
    try:
        if Path(checkpoint).is_file() and not is_trusting():
            loaded = load_file(checkpoint)
        else:
            with without_code():
                loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except UNREADABLE as error:
        is_file = Path(checkpoint).is_file()
        if isinstance(error, UnpicklingError) and (not is_file or is_saved_by_torch(checkpoint)):
            raise UserError(f'{checkpoint} {MORE_THAN_TENSORS}') from error
        if is_file:
            raise UserError(f'{checkpoint} {NO_CHECKPOINT}') from error
        raise UserError(
            f'the weights {checkpoint} cannot be fetched ({type(error).__name__}: {error}); '
            'training starts without any by "--init none", from a file by "--init PATH"'
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f'{checkpoint} {NO_CHECKPOINT}')
    return loaded


def state_dict_of(checkpoint: str) -> dict[str, Any]:
    """State dict of a checkpoint, without the prefix of a parallel model."""
    loaded = read_checkpoint(checkpoint)
    state = loaded.get('state_dict', loaded)
    return {name.removeprefix('module.'): tensor for name, tensor in state.items()}


def is_pretrained(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` reads weights."""
    return isinstance(init_cfg, dict) and init_cfg.get('type') in ('Pretrained', PretrainedInit)
