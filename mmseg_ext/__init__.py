"""Segmentation papers as MMSegmentation 1.x configs."""

from typing import TYPE_CHECKING, Any

from .host import prepare_host

if TYPE_CHECKING:  # they import PyTorch: `import mmseg_ext` stays fast
    from .inference.models import list_models, load, predict

__all__ = ['list_models', 'load', 'predict']
__version__ = '0.1.0'

prepare_host()


def __getattr__(name: str) -> Any:
    """The functions of ``__all__``, imported at their first use."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .inference import models

    return getattr(models, name)
