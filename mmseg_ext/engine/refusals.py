"""Errors of the user and Ctrl-C in a line; bugs keep their traceback."""

import linecache
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
INTERRUPTED = 130  # the exit status of a program that Ctrl-C stopped, as shells count


@contextmanager
def errors_in_a_line(*, stopped: str = 'stopped') -> Iterator[None]:
    """Ends the program with one line for what this package refuses; bugs keep their traceback.

    Args:
        stopped: what Ctrl-C says.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        print(stopped, file=sys.stderr)
        # Frees the loaders that its frames hold: at exit each of their workers takes 5 s to end.
        traceback.clear_frames(error.__traceback__)
        sys.exit(INTERRUPTED)
    except Exception as error:
        sentence = refusal(error)
        if sentence is None:
            raise
        sys.exit(f'error: {sentence}')


def refusal(error: Exception) -> str | None:
    """The sentence of an error that a ``raise`` in this package threw, here or in a data worker."""
    message = str(error.args[0]) if len(error.args) == 1 else str(error)
    if 'Original Traceback' in message:  # torch's report of an error in a worker
        places = re.findall(r'^  File "(.+)", line (\d+), in ', message, re.MULTILINE)
        final = rf'^(?:\w+\.)*{type(error).__name__}: (.*)'
        sentences = re.findall(final, message, re.MULTILINE | re.DOTALL)
        return sentences[-1].strip() if places and sentences and _raises(*places[-1]) else None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and _raises(trace.tb_frame.f_code.co_filename, trace.tb_lineno):
        return message
    return None


def _raises(filename: str, line: str | int) -> bool:
    ours = PACKAGE in Path(filename).resolve().parents
    return ours and linecache.getline(filename, int(line)).lstrip().startswith('raise ')
