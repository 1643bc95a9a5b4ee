"""The model inside of its wrappers."""

from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper


def unwrap(model: Any) -> Any:
    """The model that a wrapper of distributed training or of test-time augmentation holds.

    A model without wrapper is returned as it is.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
