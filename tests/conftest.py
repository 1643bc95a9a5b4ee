"""One torch thread a process (pytest runs two), MMSeg's scope, and our modules for every test."""

import signal
from collections.abc import Iterator

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

import mmseg_ext  # noqa: F401

torch.set_num_threads(1)


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
