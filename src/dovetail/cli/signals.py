"""A polite end on `kill`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["terminated_like_ctrl_c"]


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, which `kill`, batch schedulers and containers send, end the block as Ctrl-C does.

    By default it ends a process at once, and what waits to be written is lost. Further ones change nothing: what the
    first began is finished. A handler that is there already stays, and threads other than the main one cannot set one.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
