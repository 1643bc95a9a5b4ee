"""Counts how a matrix of inputs ended: a right result or one sentence; all else is a failure."""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from mmseg_ext.errors import UserError

RIGHT, SENTENCE, TRACEBACK, SILENT, HANG = OUTCOMES = (
    'right result',
    'one sentence',
    'traceback',
    'wrong without a word',
    'hang',
)
LIMIT = 60  # seconds of one case


class Hang(BaseException):
    """Raised in a case that runs for too long; no handler of exceptions can swallow it."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises ``Hang`` in the block after the seconds."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Tally:
    """Outcomes of the cases of a test, for its assertion and for the table of ``counts``.

    Args:
        matrix: Name of the matrix, a row of the table.
        request: Pytest's ``request`` of the test.
    """

    def __init__(self, matrix: str, request: pytest.FixtureRequest) -> None:
        self.counts = dict.fromkeys(OUTCOMES, 0)
        self.failures: list[str] = []
        request.node.user_properties.append((matrix, self.counts))

    def run(self, case: str, call: Callable[[], object], expected: str | None = None) -> None:
        """Runs a case: it returns if its result is right, and asserts what is right.

        Args:
            case: Name of the case, for the message of a failure.
            call: Function of the case.
            expected: Only outcome that passes; None for a right result or one sentence.
        """
        details = ''
        try:
            with limited(LIMIT):
                call()
            outcome = RIGHT
        except UserError as error:
            details = str(error)
            outcome = SENTENCE if is_sentence(details) else TRACEBACK
        except AssertionError:
            outcome, details = SILENT, traceback.format_exc()
        except Hang:
            outcome, details = HANG, f'{LIMIT} s'
        except Exception:
            outcome, details = TRACEBACK, traceback.format_exc()
        self.counts[outcome] += 1
        if outcome not in ((RIGHT, SENTENCE) if expected is None else (expected,)):
            self.failures.append(f'{case}: {outcome}: {details}')

    def check(self) -> None:
        """Fails with all cases that ended in another way than they must."""
        assert not self.failures, '\n'.join(self.failures)
        assert any(self.counts.values()), 'no case ran'


def is_sentence(message: str) -> bool:
    """Whether a message is one paragraph without a dump of Python objects in it."""
    return 0 < len(message) <= 600 and 'Traceback' not in message and message.count('\n') <= 2
