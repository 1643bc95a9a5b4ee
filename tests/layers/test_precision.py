"""``layers/precision.py``: only types narrower than float32 change."""

import pytest
import torch

from mmseg_ext.layers.precision import at_least_float32, wide_dtype


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_becomes_float32(dtype: torch.dtype) -> None:
    x = torch.arange(3).to(dtype)
    assert wide_dtype(x) is torch.float32
    assert torch.equal(at_least_float32(x), torch.arange(3.0))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_wide_tensors_are_not_copied(dtype: torch.dtype) -> None:
    x = torch.zeros(3, dtype=dtype)
    assert at_least_float32(x) is x
