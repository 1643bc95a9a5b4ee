"""What the recorded cases' runners share: reading a case, seeding its weights, comparing.

A paper's module here lists how each kind of its cases is computed in ``KINDS``.
"""

import json
import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmseg_ext.convert import convert

BESIDE = Path(__file__).parents[3] / 'shared'
SHARED = Path(os.environ.get('MMSEG_EXT_SHARED', BESIDE))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Case(NamedTuple):
    """A recorded case: its description, and its arrays by kind and name."""

    meta: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]

    @property
    def hyper(self) -> dict[str, Any]:
        return self.meta['hyper']


Results = tuple[dict[str, Any], dict[str, Any]]  # outputs and gradients by the case's names


def read_case(path: Path) -> Case:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    groups: dict[str, dict] = {'in': {}, 'out': {}, 'grad': {}}
    meta = json.loads(str(arrays.pop('meta')))
    for name, array in arrays.items():
        group, _, rest = name.partition('_')
        groups[group][rest] = array
    inputs = {name: torch.from_numpy(array) for name, array in groups['in'].items()}
    return Case(meta, inputs, groups['out'], groups['grad'])


def seeded_state(case: Case, prefix: str = '') -> dict[str, Tensor]:
    """The case's weights under their released names, behind ``prefix``."""
    seeded = runpy.run_path(str(SHARED / 'parity' / 'seeding.py'))['seeded_tensor']
    state = {}
    for name, shape in case.meta['state']:
        tensor = torch.from_numpy(seeded(name, shape))
        for pattern, factor in case.meta.get('state_scale', ()):
            tensor = tensor * factor if re.search(pattern, name) else tensor
        state[prefix + name] = tensor
    return state


def load(module: nn.Module, case: Case, *, paper: str, prefix: str = '', ours: str = '') -> None:
    """Seeded weights through the converter, with ``ours`` cut off the names that it gives."""
    weights = convert(paper, seeded_state(case, prefix))
    assert all(name.startswith(ours) for name in weights)
    module.load_state_dict({name.removeprefix(ours): t for name, t in weights.items()})
    module.eval()


def difference(ours: Any, reference: np.ndarray) -> float:
    """Largest absolute difference over the reference's standard deviation.

    Over the larger of its magnitude and 0.01 where it is a single or a constant value.
    """
    ours = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, np.float64)
    reference = reference.astype(np.float64)
    assert ours.shape == reference.shape
    if not reference.size:
        return 0.0
    scale = reference.std()
    if reference.ndim == 0 or scale == 0:
        scale = max(np.abs(reference).max(), 1e-2)
    return float(np.abs(ours - reference).max() / scale)


def difference_to_maximum(ours: Any, reference: np.ndarray) -> float:
    """Largest absolute difference over the reference's largest magnitude, unless that is 0."""
    error = np.abs(np.asarray(ours.detach()) - reference).max()
    return float(error / (np.abs(reference).max() or 1))


def difference_in_norm(ours: Any, reference: np.ndarray) -> float:
    error = np.linalg.norm(np.asarray(ours.detach()) - reference)
    return float(error / (np.linalg.norm(reference) or 1))


def normalised(image: Tensor) -> Tensor:
    return (image / 255 - MEAN[:, None, None]) / STD[:, None, None]


class Kind(NamedTuple):
    """How a kind of case is computed, and what it may deviate."""

    run: Callable[[Case], Results]
    values: float
    grads: float = 0.0
    grad_difference: Callable[[Any, np.ndarray], float] = difference
    value_difference: Callable[[Any, np.ndarray], float] = difference
