"""Child processes that end with their parent."""

import os
import signal
from multiprocessing import parent_process
from threading import Thread


def end_with_parent() -> None:
    """Ends this child process when its parent ends, even by SIGKILL; for a pool's ``initializer``.

    Ctrl-C ends it without a traceback, because the parent prints a line.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
