"""The group of commands: one clear line per error, and the exit code that goes with it."""

from __future__ import annotations

from typing import Any

import click

from dovetail.errors import CheckpointError, ConfigError, DataError, DovetailError, FormatError, PlanError

__all__ = ["Commands", "Stopped"]

_BAD_INPUT = (ConfigError, DataError, CheckpointError, FormatError, PlanError)


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """A command ended by Ctrl-C, or `kill`, after it had put everything in order."""


class Commands(click.Group):
    """A group that keeps the order in which commands were added and turns dovetail's errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(1)
        except DovetailError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, _BAD_INPUT) else 1)
