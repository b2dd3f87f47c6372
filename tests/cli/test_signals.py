"""SIGTERM inside a command."""

from __future__ import annotations

import signal
import threading

import pytest

from dovetail.cli.signals import terminated_like_ctrl_c


def be_killed_twice() -> None:
    with terminated_like_ctrl_c():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # must not cut short what the first began


def test_kill_interrupts_the_block_once_and_then_is_as_it_was() -> None:
    with pytest.raises(KeyboardInterrupt):
        be_killed_twice()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_that_is_there_already_stays() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with terminated_like_ctrl_c():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def test_other_threads_set_none() -> None:
    seen: list[object] = []

    def work() -> None:
        with terminated_like_ctrl_c():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
