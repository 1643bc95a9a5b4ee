"""Files of tensors in the safetensors format, as Hugging Face writes them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUFFIX = '.safetensors'
DTYPES = dict(
    F64=torch.float64,
    F32=torch.float32,
    F16=torch.float16,
    BF16=torch.bfloat16,
    I64=torch.int64,
    I32=torch.int32,
    U8=torch.uint8,
    BOOL=torch.bool,
)


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name.

    A file is the length of the header in 8 bytes, the header as json, and the bytes of the tensors.

    Raises:
        ValueError: The file is damaged or of another kind; KeyError for another type of numbers.
    """
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], 'little')
    header: Any = json.loads(data[8:start])
    if not isinstance(header, dict):
        raise ValueError('its header is no dict')
    header.pop('__metadata__', None)
    tensors = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry['data_offsets'])
        if last > len(data):
            raise ValueError(f'it ends before the tensor {name}')
        dtype, shape = DTYPES[entry['dtype']], entry['shape']
        empty = torch.empty(0, dtype=dtype)
        values = torch.frombuffer(data[first:last], dtype=dtype) if last > first else empty
        tensors[name] = values.view(shape)
    return tensors
