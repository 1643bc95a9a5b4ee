"""Parameter counts in the README and on the pages are those that a prediction reads."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.structures import SegDataSample
from torch import nn

import mmseg_ext
from mmseg_ext.benchmark.model_costs import trace_operations
from mmseg_ext.config.paper import drop_inherited_score, paper_score
from mmseg_ext.papers.magnet import MagNet

ROOT = Path(__file__).parents[2]
ROW = r'^\| .*\| \[configs/(\w+)\].*?\|.*?\| ([\d.]+) \(.*\| ([\d.]+) M \|$'
PAGE_ROW = r'^\| `configs/([\w/]+)\.py` \|.*\| ([\d.]+) M \|$'


def config_with(paper: str, miou: str) -> str:
    """Name of the config that has this mIoU of the paper."""
    for path in sorted((ROOT / 'configs' / paper).glob('*.py')):
        cfg = Config.fromfile(path)
        drop_inherited_score(cfg, str(path))
        score = paper_score(cfg)
        if score is not None and score.miou == float(miou):
            return f'{paper}/{path.stem}'
    raise AssertionError(f'no config of {paper} has miou={miou}')


def documented() -> list[tuple[str, str]]:
    rows = re.findall(ROW, (ROOT / 'README.md').read_text(), re.MULTILINE)
    found = [(config_with(paper, miou), count) for paper, miou, count in rows]
    for page in sorted(ROOT.glob('configs/*/README.md')):
        found += re.findall(PAGE_ROW, page.read_text(), re.MULTILINE)
    return found


def millions_of_prediction(model: nn.Module) -> float:
    if isinstance(model, MagNet):
        # as many refiners, but few patches
        model.scales = [(128 + 2 * i, 256) for i in range(len(model.scales))]
    else:
        model.test_cfg = ConfigDict(model.test_cfg, mode='whole')
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64))
    sample = SegDataSample(metainfo=meta)
    trace = trace_operations(lambda: model.predict(torch.zeros(1, 3, 64, 64), [sample]))
    return sum(p.numel() for p in model.parameters() if trace.reads(p)) / 1e6


DOCUMENTED = documented()
assert len(DOCUMENTED) >= 10


@pytest.mark.parametrize(('name', 'count'), DOCUMENTED)
@torch.no_grad()
def test_a_documented_count_is_the_networks(name: str, count: str) -> None:
    assert f'{millions_of_prediction(mmseg_ext.load(name, fast=False)):.2f}' == count
