"""One torch thread a process (pytest runs two), MMSeg's scope, and our modules for every test."""

import signal
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

import mmseg_ext  # noqa: F401
from tests.reliability.tally import OUTCOMES

torch.set_num_threads(1)
# Under nohup, or behind a script's &, they are ignored, and so they would be by all trainings.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)  # a program that Ctrl-C ends ignores the next one
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    MessageHub._instance_dict.clear()  # the iteration that another test's training ended with
    init_default_scope('mmseg')
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how the cases of the matrices in ``tests/reliability`` ended."""
    matrices: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, counts in getattr(report, 'user_properties', ()):
                if isinstance(counts, dict) and report.when == 'call':
                    matrices.setdefault(name, Counter()).update(counts)
    if matrices:
        terminalreporter.write_line('| matrix | cases | ' + ' | '.join(OUTCOMES) + ' |')
        terminalreporter.write_line('|' + ' --- |' * (2 + len(OUTCOMES)))
    for name, counts in sorted(matrices.items()):
        row = [name, counts.total(), *(counts[outcome] for outcome in OUTCOMES)]
        terminalreporter.write_line('| ' + ' | '.join(map(str, row)) + ' |')
