"""The command line: parse, call, print, exit code.

Exit codes: 0 done, 1 failed or stopped, 2 bad usage or bad input. Results go to standard output, everything else to
standard error. Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import click

from dovetail import __version__
from dovetail.cli.compare import compare
from dovetail.cli.formats import formats
from dovetail.cli.group import Commands
from dovetail.cli.profile import profile
from dovetail.cli.search import search
from dovetail.cli.show import show
from dovetail.cli.space import space
from dovetail.cli.train import train
from dovetail.cli.transform import transform

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dovetail")
def main() -> None:
    """Make a neural network fit its hardware.

    Searches how precise each tensor and how wide each layer is, and gives the Pareto front of quality against cost.
    Each command takes a configuration, a TOML file; docs/config.md says what it may hold.
    """


for command in (train, profile, space, transform, search, show, compare, formats):
    main.add_command(command)
