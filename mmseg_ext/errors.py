"""Mistakes of a user, and the line that a program prints of one; bugs keep their traceback."""

import gc
import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # exit status of a program that Ctrl-C stopped, as shells count


class UserError(ValueError):
    """A mistake of the user, raised where it is found.

    Its message is one sentence: what came, what was expected, what to do.
    """

    @property
    def sentence(self) -> str:
        """The message, without PyTorch's report around it where a data worker raised the error.

        PyTorch raises the class again with the worker's formatted traceback as its message; the
        last line of a traceback is the name of the class and the message.
        """
        return str(self).rpartition(f'{type(self).__name__}: ')[2].strip()


@contextmanager
def errors_in_a_line(*, stopped: str = 'stopped') -> Iterator[None]:
    """Ends the program with one line for an error of the user; bugs keep their traceback.

    Args:
        stopped: Line to print after Ctrl-C.
    """
    if not gc.isenabled():  # quick_imports
        gc.enable()
        gc.freeze()  # what is imported stays
    try:
        yield
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program is ending
        print(stopped, file=sys.stderr)
        # Frees the loaders that its frames hold: at exit each of their workers takes 5 s to end.
        traceback.clear_frames(error.__traceback__)
        sys.exit(INTERRUPTED)
    except UserError as error:
        sys.exit(f'error: {error.sentence}')


def import_extra(module: str, package: str, purpose: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module: Name of the module.
        package: Name of its distribution.
        purpose: Words for what needs it.

    Raises:
        UserError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'{purpose} needs {package}: pip install {package}') from error
