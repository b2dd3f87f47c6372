"""What commands share: reading the configuration, saying what happens, printing JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dovetail.config import RunConfig

__all__ = ["config_argument", "default_out", "json_option", "print_json", "read", "say"]

F = TypeVar("F", bound=Callable[..., Any])


def config_argument(command: F) -> F:
    """The argument CONFIG."""
    return click.argument("config", type=click.Path(path_type=Path))(command)


def json_option(command: F) -> F:
    """The option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")(command)


def read(path: Path, **overrides: Any) -> RunConfig:
    """The configuration in a file, with options that were given on the command line; warnings are printed.

    Args:
        path: the TOML file.
        overrides: values by key, `search_trials` for `search.trials`; None leaves the config's.
    """
    from dovetail.config import read_config

    config, warnings = read_config(path)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    given = {key: value for key, value in overrides.items() if value is not None}
    search = {key.removeprefix("search_"): value for key, value in given.items() if key.startswith("search_")}
    own = {key: value for key, value in given.items() if not key.startswith("search_")}
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **search), **own)


def default_out(config: RunConfig, path: Path, out: Path | None, command: str) -> Path:
    """The folder for results: --out, the config's `out`, or `runs/<name of the config>/<command>`."""
    if out is not None:
        return out
    return Path(config.out) if config.out is not None else Path("runs") / path.stem / command


def say(text: str) -> None:
    """One line on standard error."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Strict JSON on standard output: what is not a finite number is null."""
    click.echo(json.dumps(_strict(value), indent=2, ensure_ascii=False))


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
