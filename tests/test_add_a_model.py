"""The README's section "Add a model", followed with a toy paper in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PAPER = '''"""Toy: Scaling the Logits, of no venue.

No code was released. A decode head whose logits have a learned factor.
"""

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers.head_defaults import released_defaults


@MODELS.register_module()
class ToyHead(BaseDecodeHead):
    """Classifies each pixel and scales the logits by a learned factor.

    Args:
        channels: Channels of the hidden layer.
        **kwargs: Arguments of ``BaseDecodeHead``.
    """

    host_counterpart = dict(type='FCNHead', num_convs=1, concat_input=False)

    def __init__(self, *, channels: int = 64, **kwargs: object) -> None:
        super().__init__(channels=channels, **released_defaults(kwargs))
        self.hidden = nn.Conv2d(self.in_channels, channels, 1)
        self.factor = nn.Parameter(torch.ones(self.out_channels, 1, 1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Levels (N, C_i, H_i, W_i) to logits (N, K, H, W)."""
        hidden = self.hidden(self._transform_inputs(inputs)).relu()
        return self.cls_seg(hidden) * self.factor
'''

CONVERTER = '''"""Released names of the toy paper to ours."""

from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

NAMES = ((r'net\\.hidden\\.', 'decode_head.hidden.'), (r'net\\.out\\.', 'decode_head.conv_seg.'))


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the names of this package's model."""
    return rename(state_dict, NAMES)
'''

CONFIG = '''"""The toy paper on ResNet-18, the drawn streets.

python tools/train.py configs/toy/r18_streets.py
"""

_base_ = [
    '../_base_/models/r18-d8.py',
    '../_base_/datasets/streets.py',
    '../_base_/schedules/camvid_cpu.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(init_cfg=None), decode_head=dict(type='ToyHead'))
'''

TEST = '''"""The head of the toy paper."""

import torch
from mmseg_ext.benchmark.op_benchmark import OpBenchmark
from mmseg_ext.convert import convert
from mmseg_ext.papers.toy import ToyHead
from tests.parity.case import Case, Kind, Results, seeded_state

SMALLER = {'ToyHead': dict(channels=8)}


def run_hidden(case: Case) -> Results:
    weights = convert('toy', seeded_state(case))
    x = torch.einsum('oi,nihw->nohw', weights['decode_head.hidden.weight'][..., 0, 0],
                     case.inputs['x'])
    return {'y': x}, {}


KINDS = {'hidden': Kind(run_hidden, 1e-5)}


def make(device: torch.device) -> tuple:
    x = torch.ones(8, device=device)
    return (lambda: [x + x]), (lambda: [2 * x])


BENCHMARKS = [OpBenchmark('toy', '8', make)]


def test_the_factor_scales_the_logits() -> None:
    head = ToyHead(in_channels=4, num_classes=3).eval()
    x = [torch.randn(1, 4, 5, 6)]
    before = head(x)
    head.factor.data.fill_(2)
    torch.testing.assert_close(head(x), 2 * before)
'''

RECORD = """
import json, sys
import numpy as np
from pathlib import Path
shared = Path(sys.argv[1])
(shared / 'parity' / 'cases').mkdir(parents=True)
(shared / 'parity' / 'seeding.py').write_text(
    'import numpy as np\\n'
    'def seeded_tensor(name, shape):\\n'
    '    return np.full(shape, 0.5, np.float32)\\n'
)
x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
y = np.repeat(0.5 * x.sum(1, keepdims=True), 3, axis=1)
meta = dict(paper='toy', kind='hidden', hyper={}, state=[['net.hidden.weight', [3, 2, 1, 1]]])
np.savez(shared / 'parity' / 'cases' / 'toy-hidden.npz', meta=json.dumps(meta), in_x=x, out_y=y)
"""

STEPS = {  # in the order of the README
    'mmseg_ext/papers/toy.py': PAPER,
    'mmseg_ext/convert/toy.py': CONVERTER,
    'configs/toy/r18_streets.py': CONFIG,
    'configs/toy/README.md': '# Toy\n\nThe logits have a learned factor.\n',
    'tests/papers/test_toy.py': TEST,
}


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the toy paper, and the parity case of its released code."""
    tree = tmp_path_factory.mktemp('copy') / 'tree'
    for name in ('mmseg_ext', 'configs', 'tests', 'tools', 'benchmarks'):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    for name, text in STEPS.items():
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    subprocess.run([sys.executable, '-c', RECORD, str(tree / 'shared')], check=True)
    return tree


def run(tree: Path, *command: str) -> str:
    env = dict(os.environ, PYTHONPATH=str(tree), MMSEG_EXT_SHARED=str(tree / 'shared'))
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_names_each_file() -> None:
    section = (ROOT / 'README.md').read_text().split('## Add a model')[1].split('\n## ')[0]
    named = set(re.findall(r'`([\w/<>.]+)`', section))
    for name in STEPS:
        assert name.replace('toy', '<paper>').replace('r18_streets.py', '') in named or any(
            name.replace('toy', '<paper>').startswith(folder) for folder in named
        ), name


def test_the_suite_takes_the_toy_paper_up(tree: Path) -> None:
    files = ('test_configs', 'test_parity', 'test_words', 'test_imports', 'papers/test_toy')
    options = ('-m', 'pytest', '-vv', '-p', 'no:cacheprovider', '-k', 'toy')
    out = run(tree, *options, *(f'tests/{name}.py' for name in files))
    for name in (
        'test_every_parameter_learns_whatever_is_ignored[0.0-toy/r18_streets]',
        'test_case_equals_the_released_code[toy-hidden]',
        'test_the_factor_scales_the_logits',
    ):
        assert re.search(f'{re.escape(name)} PASSED', out), out
    assert 'SKIPPED' not in out


def test_the_tools_take_the_toy_paper_up(tree: Path) -> None:
    assert 'toy' in run(tree, 'tools/convert_checkpoint.py', '--help')
    assert 'toy' in run(tree, 'tools/benchmark_ops.py', 'toy', '--repeats', '1')
