"""The commands of PSSL's page from drawn pictures to a fine-tuned network, on little data."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'configs/pssl/README.md').read_text()
SECTION = PAGE.split('## Without ImageNet')[1].split('The same for CamVid')[0]
COMMANDS = re.findall(r'^    (python tools/.*)$', SECTION, re.MULTILINE)
SHORTER = {
    'make_shapes': '--train 8 --val 2 --size 40',
    'train_classifier': '--epochs 1 --size 32 --width 0.25',
    'pssl_labels': '--samples 1',
    'train': '--max-epochs 1 --crop-size 32 32',
    'convert_checkpoint': '',
    'make_streets': '--train 8 --val 2 --size 64 128',
}


def run(command: str, folder: Path) -> str:
    env = dict(os.environ, OMP_NUM_THREADS='1', PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin')
    done = subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    return done.stdout + done.stderr


def test_commands_run_one_after_the_other(tmp_path: Path) -> None:
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    assert len(COMMANDS) == 11
    outputs = {}
    for command in COMMANDS:
        if 'c1.pth' in command or 'c2.pth' in command or '--init none' in command:
            continue  # as the one before
        tool = re.search(r'tools/(\w+)', command)[1]
        command = command.replace('epoch_12', 'epoch_1')
        outputs[command] = run(f'{command} {SHORTER[tool]}', tmp_path)
    tuned = next(out for command, out in outputs.items() if 'start.pth --seed' in command)
    assert re.search(r'start.pth: 2 not in it: decode_head.conv_seg.weight', tuned), tuned[:3000]
    assert (tmp_path / 'work_dirs/pssl/efflite_fpn_streets/epoch_1.pth').exists()
