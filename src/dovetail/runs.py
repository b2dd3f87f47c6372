"""A run's folder: where its study is, and whether a search may go on in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dovetail.errors import ConfigError, StudyError
from dovetail.report.run_files import RunFiles, write_atomically
from dovetail.study import Study, StudyHeader, shown

__all__ = ["continue_run", "open_run"]


@dataclass(frozen=True, slots=True)
class _Pointer:
    """What `run.json` says: which study, where it is (None: in the folder), and what it is a search of."""

    study: str
    storage: str | None
    identity: dict[str, str]


def continue_run(files: RunFiles, header: StudyHeader, *, storage: str | None, config_text: str) -> Study:
    """The study of a run's folder, made where there is none yet; the folder gets the resolved configuration.

    Args:
        files: the folder.
        header: what the search is.
        storage: a SQLAlchemy URL or a file; None: a file in the folder.
        config_text: the resolved configuration as TOML.

    Raises:
        ConfigError: The folder holds a search of another configuration; the message names the differing key.
        StudyError: The folder or the storage cannot be written.
    """
    if files.pointer.is_file():
        earlier = _read_pointer(files)
        _check_same(files, header, earlier.identity)
        name = earlier.study
    else:
        if taken := next((path for path in (files.study, files.config) if path.exists()), None):
            raise ConfigError(f"{taken}: is in the way of the run's own file; give the search another --out.")
        name = f"search-{_digest(header)}"
    where = None if storage is None else shown(storage)
    with write_atomically(files.pointer) as file:
        json.dump({"study": name, "storage": where, "identity": dict(header.identity)}, file, indent=1)
    with write_atomically(files.config) as file:
        file.write(_config_text(header, config_text))
    return Study.create(files.study if storage is None else storage, name, header)


def open_run(folder: Path, *, storage: str | None = None) -> Study:
    """The study of a run's folder, of a finished or a running search.

    Args:
        folder: the run's folder, or a study's SQLite file.
        storage: where the study is, for a storage whose URL has a password: passwords are never written down.

    Raises:
        ConfigError: There is no run.
        StudyError: The study cannot be read.
    """
    if folder.is_file():
        return Study.open(folder)
    files = RunFiles(folder)
    if not files.pointer.is_file():
        raise ConfigError(f"{folder}: must be the folder of a search; there is no {files.pointer.name} in it.")
    pointer = _read_pointer(files)
    where = storage or pointer.storage
    if where is None:
        return Study.open(files.study, pointer.study)
    if "***" in where:
        raise ConfigError(f"{folder}: its study is at {where}: give the URL with its password by --storage.")
    return Study.open(where, pointer.study)


def _check_same(files: RunFiles, header: StudyHeader, there: dict[str, str]) -> None:
    here = dict(header.identity)
    for key in sorted(here.keys() | there.keys()):
        if here.get(key) != there.get(key):
            raise ConfigError(
                f"{files.folder}: holds a search of another configuration: {key} is {there.get(key, 'absent')} there "
                f"and {here.get(key, 'absent')} here. "
                "Go on with the same configuration, or give this search another --out."
            )


def _read_pointer(files: RunFiles) -> _Pointer:
    try:
        pointer = json.loads(files.pointer.read_text(encoding="utf-8"))
        return _Pointer(pointer["study"], pointer["storage"], dict(pointer["identity"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StudyError(f"{files.pointer}: is damaged: {error!r}. Give the search another --out.") from error


def _config_text(header: StudyHeader, config_text: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in header.versions)
    return (
        f"# Resolved configuration of this run; running it again gives the same trials.\n# {versions}\n\n{config_text}"
    )


def _digest(header: StudyHeader) -> str:
    return hashlib.sha256(repr(header.identity).encode()).hexdigest()[:12]
