"""Our modules against recorded outputs of the papers' released code, one test per recorded case.

A case is a file ``parity/cases/<paper>-<case>.npz`` in ``$MMSEG_EXT_SHARED`` or in a folder
``shared`` beside the checkout. Its weights are drawn from their released names and go through the
paper's converter. ``KINDS`` in ``tests/papers/test_<paper>.py``, or in ``tests/parity/<paper>.py``
where it is long, says how its kind is computed.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.case import SHARED, Case, Kind, difference_in_norm, read_case

HMSA_TRAIN = ('hmsa', 'train')
CASES = sorted((SHARED / 'parity' / 'cases').glob('*.npz'))


def kinds_of(paper: str) -> dict[str, Kind]:
    """How a paper's kinds of cases are computed; none for a paper that is not ours."""
    for name in (f'tests.parity.{paper}', f'tests.papers.test_{paper}'):
        if importlib.util.find_spec(name) is not None:
            return getattr(importlib.import_module(name), 'KINDS', {})
    return {}


def tolerance(case: Case, kind: Kind, name: str) -> float:
    """What output ``name`` may deviate."""
    stated = case.meta.get('tolerance')
    if isinstance(stated, float):  # else of gradients, by their names
        return stated
    return 1e-4 if name.startswith('bntrain_') else kind.values


def grad_rule(case: Case, kind: Kind) -> tuple[Callable[[Any, np.ndarray], float], float]:
    """How gradients are compared: those of the deep released HRNet-W48 by their norm.

    A few of its ReLU inputs lie within float32 rounding of zero.
    """
    if case.hyper.get('hrnet_channels') == [48, 96, 192, 384]:
        return difference_in_norm, 3e-3
    return kind.grad_difference, kind.grads


@pytest.mark.skipif(not (SHARED / 'parity').is_dir(), reason=f'no recorded outputs in {SHARED}')
def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize('path', CASES, ids=lambda path: path.stem)
def test_case_equals_the_released_code(path: Path) -> None:
    case = read_case(path)
    paper = case.meta['paper']
    kinds = kinds_of(paper)
    if not kinds:
        pytest.skip(f'{paper} is not ours yet')
    kind = kinds[case.meta['kind']]
    outputs, grads = kind.run(case)
    for name, reference in case.outputs.items():
        error = kind.value_difference(outputs[name], reference)
        assert error <= tolerance(case, kind, name), name
    compare, limit = grad_rule(case, kind)
    for name, reference in case.grads.items():
        assert compare(grads[name], reference) <= limit, name


@pytest.mark.skipif(not CASES, reason=f'no recorded outputs in {SHARED}')
def test_only_the_outputs_of_a_case_are_computed() -> None:
    """Norms cannot train on the single value that an image of 48x64 has at stride 64."""
    case = next(c for c in map(read_case, CASES) if (c.meta['paper'], c.meta['kind']) == HMSA_TRAIN)
    inputs = {name: x[..., :48, :64] for name, x in case.inputs.items()}
    outputs = {name: x for name, x in case.outputs.items() if not name.startswith('bntrain_')}
    one_image = case._replace(inputs={name: x[:1] for name, x in inputs.items()}, outputs=outputs)
    found, grads = kinds_of('hmsa')['train'].run(one_image)
    assert outputs.keys() <= found.keys() and case.grads.keys() == grads.keys()
