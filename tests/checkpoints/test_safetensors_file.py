"""Reading of safetensors files."""

import json
import struct
from pathlib import Path

import pytest
import torch

from mmseg_ext.convert import read_weights
from mmseg_ext.errors import UserError


def written(path: Path, tensors: dict[str, torch.Tensor], *, cut: int = 0) -> Path:
    names = {torch.float32: 'F32', torch.bfloat16: 'BF16', torch.int64: 'I64'}
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b''
        offsets = [len(data), len(data) + len(raw)]
        header[name] = dict(
            dtype=names[tensor.dtype], shape=list(tensor.shape), data_offsets=offsets
        )
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes((struct.pack('<Q', len(text)) + text + data)[: -cut or None])
    return path


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    tensors = {
        'a': torch.randn(3, 4),
        'b': torch.randn(5).bfloat16(),
        'c': torch.tensor([7]),
        'd': torch.zeros(0, 3),
    }
    found = read_weights(written(tmp_path / 'model.safetensors', tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize('content', [b'', b'<html>', struct.pack('<Q', 5) + b'[1,2]'], ids=str)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'model.safetensors'
    path.write_bytes(content)
    with pytest.raises(UserError, match='cannot be read as a checkpoint'):
        read_weights(path)


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / 'model.safetensors', {'a': torch.randn(9)}, cut=4)
    with pytest.raises(UserError, match='ends before the tensor a'):
        read_weights(path)
