"""TOML file -> RunConfig and back."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from dovetail.chop import is_chop, translate
from dovetail.errors import ConfigError, unknown_name
from dovetail.settings import RunConfig

__all__ = ["decode_config", "load_config", "read_config", "to_toml"]

logger = logging.getLogger("dovetail.config")
_DATA_FILES = (".npz", ".csv", ".parquet", ".h5", ".hdf5")


def load_config(path: str | Path) -> RunConfig:
    """The run that a TOML file describes; warnings go to the logger `dovetail.config`.

    Raises:
        ConfigError: Unreadable, not TOML, an unknown key, a wrong type or an impossible value; the message names the
            file, the dotted path and the way out.
    """
    config, warnings = read_config(path)
    for warning in warnings:
        logger.warning("%s", warning)
    return config


def read_config(path: str | Path) -> tuple[RunConfig, tuple[str, ...]]:
    """The run that a TOML file describes, and what of it cannot be honoured.

    A file in the layout of MASE's `chop` is recognised and translated. Relative paths are taken from the file's folder.

    Raises:
        ConfigError: As `load_config`.
    """
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: must be a readable file: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: must be TOML: {error}.") from error
    warnings: tuple[str, ...] = ()
    if is_chop(table):
        table, warnings = translate(table, where=str(file))
    config = decode_config(table, where=str(file))
    return _with_absolute_paths(config, file.resolve().parent), warnings


def decode_config(table: Mapping[str, Any], *, where: str = "config") -> RunConfig:
    """The run that a TOML table describes; paths stay as they are.

    Raises:
        ConfigError: As `load_config`.
    """
    for path, known, key in _unknown_keys(table, RunConfig, ()):
        raise ConfigError(f"{': '.join(filter(None, (where, path)))}: {unknown_name('key', key, known)}")
    try:
        return msgspec.convert(table, RunConfig, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(_name_entry(str(error), table), table)}") from error


def to_toml(config: RunConfig) -> str:
    """A TOML text that reads back to an equal config; Python objects in it cannot be written and are left out."""
    table = {key: value for key, value in msgspec.to_builtins(_toml_part(config)).items() if value is not None}
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in scalars.items()]
    for name, section in table.items():
        if isinstance(section, dict):
            lines += _section(name, section)
    return "\n".join(lines).lstrip("\n") + "\n"


def _unknown_keys(table: object, kind: Any, path: tuple[str, ...]) -> Iterator[tuple[str, list[str], str]]:
    """(dotted path of the table, keys it may have, the unknown key) for each key that `kind` does not declare."""
    if not dataclasses.is_dataclass(kind) or not isinstance(table, Mapping):
        return
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind) if f.metadata.get("toml", True)]
    for key, value in table.items():
        if key not in known:
            yield ".".join(path), known, key
            continue
        yield from _unknown_below(value, hints[key], (*path, key))


def _unknown_below(value: object, hint: Any, path: tuple[str, ...]) -> Iterator[tuple[str, list[str], str]]:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(item, arguments[0], (*path[:-1], f"{path[-1]}[{index}]"))
    elif typing.get_origin(hint) is dict and isinstance(value, Mapping):
        for name, item in value.items():
            yield from _unknown_keys(item, arguments[1], (*path, name))
    else:
        yield from _unknown_keys(value, hint, path)


def _explain(message: str, table: Mapping[str, Any]) -> str:
    """msgspec's message with the dotted path first and what came last."""
    text, _, where = message.partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"{'.'.join(filter(None, (path, missing[1])))}: must be given."
    if expected := re.fullmatch(r"Expected `(.+)`, got `(.+)`", text):
        return f"{path}: must be {expected[1].replace('null', 'left out')}, got {expected[2]}{_found(table, path)}."
    if choice := re.fullmatch(r"Invalid enum value '(.+)'", text):
        near = difflib.get_close_matches(choice[1], _literals(path), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{path}: must be one of {', '.join(_literals(path))}, got {choice[1]!r}.{hint}"
    return f"{path}.{text}" if path else text


def _name_entry(message: str, table: Mapping[str, Any]) -> str:
    """msgspec's message with the name in place of the `[...]` by which it means some entry of a table."""
    where = re.search(r"`\$\.(\w+)\.(\w+)\[\.\.\.\]", message)
    if where is None:
        return message
    section, key = where[1], where[2]
    for name, entry in table[section][key].items():
        alone = {**table, section: {**table[section], key: {name: entry}}}
        try:
            msgspec.convert(alone, RunConfig, strict=True)
        except msgspec.ValidationError:
            return message.replace("[...]", f".{name}", 1)
    return message


def _found(table: Mapping[str, Any], path: str) -> str:
    """The value at a dotted path, for a message; nothing where the path has a name that is not plain."""
    value: Any = table
    for part in re.findall(r"\w+", path):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return ""
    return "" if isinstance(value, dict | list) else f" {value!r}"


def _literals(path: str) -> list[str]:
    kind: Any = RunConfig
    for part in re.sub(r"\[(\d+|\.\.\.)\]", "", path).split("."):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        kind = hints.get(part, kind)
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) in (dict, tuple):
            kind = arguments[1] if typing.get_origin(kind) is dict else arguments[0]
    found = [a for a in typing.get_args(kind) if isinstance(a, str)]
    return found or [a for union in typing.get_args(kind) for a in typing.get_args(union) if isinstance(a, str)]


def _with_absolute_paths(config: RunConfig, folder: Path) -> RunConfig:
    """The config with relative file names taken from the config file's folder."""
    model, data, evaluation = config.model, config.data, config.evaluation
    storage = config.storage
    if storage is not None and "://" not in storage:
        storage = _within(folder, storage)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            model,
            name=_callable_path(model.name, folder),
            checkpoint=None if model.checkpoint is None else _within(folder, model.checkpoint),
        ),
        data=dataclasses.replace(data, name=_data_path(data.name, folder)),
        evaluation=dataclasses.replace(evaluation, importance=_callable_path(evaluation.importance, folder)),
        out=None if config.out is None else _within(folder, config.out),
        storage=storage,
    )


def _within(folder: Path, name: str) -> str:
    return os.path.normpath(folder / name)


def _callable_path(name: str, folder: Path) -> str:
    file, colon, attribute = name.rpartition(":")
    return f"{_within(folder, file)}:{attribute}" if colon and file.endswith(".py") else name


def _data_path(name: str, folder: Path) -> str:
    return _within(folder, name) if name.endswith(_DATA_FILES) else _callable_path(name, folder)


def _toml_part(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = (f for f in dataclasses.fields(value) if f.metadata.get("toml", True))
        return {f.name: _toml_part(getattr(value, f.name)) for f in fields}
    if isinstance(value, Mapping):
        return {key: _toml_part(item) for key, item in value.items()}
    return [_toml_part(item) for item in value] if isinstance(value, list | tuple) else value


def _section(name: str, section: dict[str, Any]) -> list[str]:
    lists = {k: v for k, v in section.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    tables = {k: v for k, v in section.items() if isinstance(v, dict) and v}
    lines = _body(f"[{name}]", {k: v for k, v in section.items() if k not in lists and k not in tables})
    for key, rules in lists.items():
        for rule in rules:
            lines += _body(f"[[{name}.{key}]]", rule)
    for key, table in tables.items():
        lines += _body(f"[{name}.{key}]", table)
    return lines


def _body(header: str, table: dict[str, Any]) -> list[str]:
    """A table's lines, what is None or empty left out; nothing at all where that is all there is."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None and v != [] and v != {}]
    return ["", header, *lines] if lines else []


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        items = (f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{ " + ", ".join(items) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
