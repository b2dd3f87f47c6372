"""Python callables by name: `"package.module:attribute"` and `"file.py:attribute"`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from dovetail.errors import ConfigError, unknown_name

__all__ = ["is_callable_name", "load_callable", "raised", "with_installed"]

Member = TypeVar("Member")


def is_callable_name(name: str) -> bool:
    """Whether a name has the form `module:attribute`."""
    return ":" in name


def load_callable(name: str, *, where: str) -> Callable[..., Any]:
    """The callable that a name means; a file is executed once per content and process.

    Args:
        name: `"package.module:attribute"` or `"path/to/file.py:attribute"`; the attribute may be dotted.
        where: What asks, for messages (`"model.name"`).

    Raises:
        ConfigError: No such file, module or attribute, or the attribute cannot be called.
    """
    source, _, attribute = name.rpartition(":")
    module = _from_file(Path(source), where) if source.endswith(".py") else _from_package(source, where)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{where}: {source}: {unknown_name('name', part, _public(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{where}: {name!r}: must be callable, got {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def with_installed(table: Mapping[str, Member], group: str) -> dict[str, Member]:
    """A table, and what installed packages add to it by entry points.

    Args:
        table: name -> member.
        group: of the entry points; their names are the members' names.

    Raises:
        ConfigError: A name is taken already.
    """
    joined = dict(table)
    for entry in entry_points(group=group):
        if entry.name in joined:
            raise ConfigError(f"entry point {group}: {entry.name!r} ({entry.value}) is another one's name already.")
        joined[entry.name] = entry.load()
    return joined


def raised(error: Exception) -> str:
    """What a user's code raised, and the line where it did: of the frames below the caller's the innermost outside of
    installed packages, or else the innermost."""
    trace: TracebackType | None = error.__traceback__.tb_next if error.__traceback__ is not None else None
    places = []
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    own = [place for place in places if "site-packages" not in place[0]] or places
    where = f" at {own[-1][0]}:{own[-1][1]}" if own else ""
    return f"{type(error).__name__}{where}: {error}"


def _from_package(source: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ImportError as error:
        raise ConfigError(f"{where}: {source!r} must be a module that can be imported: {error}.") from error
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(f"{where}: {source!r} must run without error, but raised {raised(error)}") from error


def _from_file(file: Path, where: str) -> ModuleType:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {file}: must be a readable file: {error.strerror}.") from error
    name = f"dovetail_user_{file.stem}_{hashlib.sha256(str(file.resolve()).encode() + content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that classes defined in it can be found by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"{where}: {file}: must run without error, but raised {type(error).__name__}: {error}"
        ) from error
    return module


def _public(module: object) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]
