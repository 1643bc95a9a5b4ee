"""Child processes that end with their parent, and memory that a process keeps."""

import ctypes
import os
import signal
import sys
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


def keep_freed_memory() -> None:
    """Large memory that is freed stays in this process, if its C library is glibc.

    The system clears memory that it hands out, which takes a part of each training step on a CPU.
    """
    mallopt = sys.platform == 'linux' and getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_trim_threshold, -1)  # never given back
        mallopt(m_mmap_max, 0)  # no separate mapping for a large block
