"""The commands of PSSL's page from drawn pictures to a fine-tuned network, on little data."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.tiny_run import forget_visualizers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'configs/pssl/README.md').read_text()
SECTION = PAGE.split('## Without ImageNet')[1].split('The same for CamVid')[0]
COMMANDS = re.findall(r'^    python (tools/.*)$', SECTION, re.MULTILINE)
SHORTER = {
    'make_shapes': '--train 8 --val 2 --size 40',
    'train_classifier': '--epochs 1 --size 32 --width 0.25',
    'pssl_labels': '--samples 1',
    'train': '--max-epochs 1 --crop-size 32 32',
    'convert_checkpoint': '',
    'make_streets': '--train 8 --val 2 --size 64 128',
}


def test_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    assert len(COMMANDS) == 11
    outputs = {}
    for command in COMMANDS:
        if re.search('--out work_dirs/pssl/c[12].pth|--init none', command):
            continue  # as the one before
        tool = re.search(r'tools/(\w+)', command)[1]
        short = f'{command} {SHORTER[tool]}'.replace('epoch_12', 'epoch_1').replace('c?', 'c0')
        forget_visualizers()
        monkeypatch.setattr(sys, 'argv', shlex.split(short))
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
        outputs[command] = capfd.readouterr().out
    (tuned,) = (out for command, out in outputs.items() if 'start.pth --' in command)
    assert 'start.pth: 2 not in it: decode_head.conv_seg.weight, decode_head.conv_seg.bias' in tuned
    assert (tmp_path / 'work_dirs/pssl/efflite_fpn_streets/epoch_1.pth').exists()
