"""`python -m dovetail`, and the command `dovetail`."""

from __future__ import annotations

import signal

__all__ = ["run"]


def run() -> None:
    """The command line. Ctrl-C ends it at once, as other programs, until a command has something to keep."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # half-imported packages answer exceptions with their own

    from dovetail.cli import main

    main(prog_name="dovetail")


if __name__ == "__main__":
    run()
