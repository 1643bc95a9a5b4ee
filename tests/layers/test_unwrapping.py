"""``layers/unwrapping.py``: wrappers come off, in any order, and nothing else."""

from mmengine.model import BaseModel, BaseTTAModel
from torch import nn

from mmseg_ext.layers.unwrapping import unwrap


class Model(BaseModel):
    def forward(self, inputs: list, data_samples: list | None = None, mode: str = 'tensor') -> list:
        return inputs


class TTA(BaseTTAModel):
    def merge_preds(self, data_samples_list: list) -> list:
        return []


def test_wrappers_come_off_in_any_order() -> None:
    model = Model()
    for wrapper in (model, nn.DataParallel(model), TTA(model), nn.DataParallel(TTA(model))):
        assert unwrap(wrapper) is model


def test_a_part_called_module_is_no_wrapped_model() -> None:
    model = nn.Module()
    model.module = nn.Linear(1, 1)
    assert unwrap(model) is model
