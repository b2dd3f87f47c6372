"""Ctrl-C and SIGTERM inside a command, and Ctrl-C before it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dovetail.cli.signals import interruptible


def be_killed_twice() -> None:
    with interruptible():
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
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def test_other_threads_set_none() -> None:
    seen: list[object] = []

    def work() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_ctrl_c_raises_inside_where_it_would_end_the_process() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


CTRL_C_AT_AN_IMPORT = """
import signal, sys
from dovetail.__main__ import run

class CtrlC:
    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path, target=None):
        if name == self.package:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # as on a terminal; a shell's background jobs ignore it
sys.meta_path.insert(0, CtrlC(sys.argv.pop(1)))
run()
"""


@pytest.mark.parametrize("package", ["dovetail.cli", "numpy", "torch"])
def test_ctrl_c_while_a_package_is_imported_ends_the_command_without_a_word(
    package: str, project: Path, tmp_path: Path
) -> None:
    command = ["search", str(project / "run.toml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT_AN_IMPORT, package, *command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("", "")
