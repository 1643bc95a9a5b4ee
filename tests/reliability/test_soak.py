"""The soak in its shortest form, and what it would report."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS

from tests.reliability.soak import (
    HEADER,
    Result,
    Sample,
    exchanges_data,
    find_differences,
    memory_and_descriptors,
    smallest_config,
    soak,
)
from tests.tiny import shrink

ITERATIONS = 1000
MIB = 2**20
CHILD = """
import sys
held = [bytearray(40 * 2**20), [open('/dev/null') for _ in range(10)]]
for line in sys.stdin:
    held += [bytearray(20 * 2**20), [open('/dev/null') for _ in range(5)]]
    print(flush=True)
"""

linux = pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='needs Linux')


def result(memory: float = 0, descriptors: float = 0, differing: tuple[str, ...] = ()) -> Result:
    """Memory and descriptors grow in each iteration; in each tenth sample both are doubled."""
    samples = []
    for iteration in range(0, ITERATIONS, 5):
        often = 2 if iteration % 50 == 0 else 1
        sample = (400 * MIB + iteration * memory, 50 + iteration * descriptors)
        samples.append(Sample(iteration, *(int(often * value) for value in sample)))
    return Result('a/b', ITERATIONS, 1, samples, 3, list(differing))


def test_steady_use_with_peaks_is_no_growth() -> None:
    assert result().problems() == []
    assert result(memory=-MIB / 10, descriptors=-0.01).problems() == []


def test_a_leak_of_more_than_a_hundredth_is_reported() -> None:
    (sentence,) = result(memory=MIB / 100).problems()
    assert sentence.startswith('a/b: bytes of 4') and 'grew to' in sentence
    assert result(memory=MIB / 200).problems() == []


def test_descriptors_that_are_not_closed_are_reported() -> None:
    assert result(descriptors=0.01).problems() == ['a/b: descriptors of 53 grew to 59']
    assert result(descriptors=0.002).problems() == []  # one or two come and go


def test_weights_that_differ_are_reported() -> None:
    broken = result(differing=('.state_dict.conv.weight',))
    assert broken.problems() == ['a/b: .state_dict.conv.weight differ after 3 kills']
    assert broken.row().endswith('| 3 | no |')
    assert result().row().endswith('| 3 | yes |')


def test_samples_are_needed_in_both_windows() -> None:
    with pytest.raises(AssertionError, match='no sample between the iterations 250'):
        Result('a/b', ITERATIONS, 1, [], 0, []).problems()


def test_each_difference_of_two_checkpoints_is_found() -> None:
    def checkpoint() -> dict:
        weights = {'a': torch.zeros(2), 'b': torch.tensor(1)}
        return {'state_dict': weights, 'optimizer': {'state': [{'lr': 0.1}]}}

    a, b = checkpoint(), checkpoint()
    assert list(find_differences(a, b)) == []
    b['state_dict']['a'][1] = -0.0  # equal, but not the same bits
    b['state_dict']['b'] += 1
    b['optimizer']['state'][0]['lr'] = 0.2
    b['more'] = 1
    assert sorted(find_differences(a, b)) == [
        '.more',
        '.optimizer.state.0.lr',
        '.state_dict.a',
        '.state_dict.b',
    ]


@pytest.mark.parametrize(
    ('paper', 'name', 'talks'),
    [
        ('fastfcn', 'r18_jpu_psp_streets', False),
        ('hanet', 'hrnet18s_streets', False),
        ('pixel_contrast', 'hrnet18s_streets_memory', True),
    ],
)
def test_the_config_has_what_the_paper_adds(paper: str, name: str, talks: bool) -> None:
    config = smallest_config(paper)
    assert config.stem == name
    model = MODELS.build(ConfigDict(shrink(Config.fromfile(config).model.to_dict())))
    assert exchanges_data(model) is talks


@linux
def test_memory_and_open_files_of_a_process_are_counted() -> None:
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, '-c', CHILD], **pipes) as child:
        counts = []
        for _ in range(2):
            child.stdin.write(b'\n')
            child.stdin.flush()
            child.stdout.readline()
            counts.append(memory_and_descriptors(child.pid))
        child.stdin.close()
    (memory, descriptors), (more_memory, more_descriptors) = counts
    assert more_memory - memory == pytest.approx(20 * MIB, rel=0.05)
    assert more_descriptors - descriptors == 5
    assert memory_and_descriptors(child.pid) == (0, 0)


@linux
def test_a_short_soak_with_a_kill_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('tests.reliability.soak.VALIDATIONS', 2)  # each takes seconds
    outcome = soak(smallest_config('danet'), tmp_path, iterations=60, kills=1)
    assert outcome.kills == 1 and outcome.differing == []
    assert outcome.row().count('|') == HEADER.splitlines()[0].count('|')
    logs = (tmp_path / 'danet/cut/log.txt').read_text()
    assert 'resumed epoch: ' in logs or 'nothing to resume' in logs
