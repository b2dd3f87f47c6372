"""A polite end on Ctrl-C and on `kill`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, and SIGTERM, which `kill`, batch schedulers and containers send.

    Elsewhere both end the process at once (Ctrl-C where `dovetail.__main__` has it so), and what waits to be written
    is lost. Further SIGTERMs change nothing: what the first began is finished. A handler that is there already
    stays, and threads other than the main one cannot set one.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _interrupt}
    is_main = threading.current_thread() is threading.main_thread()
    ours = [sent for sent in handlers if is_main and signal.getsignal(sent) == signal.SIG_DFL]
    for sent in ours:
        signal.signal(sent, handlers[sent])
    try:
        yield
    finally:
        for sent in ours:
            signal.signal(sent, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
