"""The code that a model's classes run, as text to make a key of: a changed line is another key."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, ModuleType

import torch
from torch import nn

__all__ = ["code_digest", "source_parts"]


def source_parts(model: nn.Module) -> Iterator[str]:
    """Digests of the code of a model's classes.

    Of the user's own: the files that define them and, from there, every file of the user's that is imported. Of an
    installed package: the file and the package's version. Of what was typed into a session: its bytecode.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if issubclass(kind, nn.Module)}
    kinds = {kind for kind in kinds if not kind.__module__.startswith("torch.")}
    modules = {name: sys.modules[name] for name in sorted({kind.__module__ for kind in kinds}) if name in sys.modules}
    yield from sorted(f"{name} {_version(name)}" for name in modules)
    yield from sorted(_file_digest(file) for file in _files(modules.values()))
    typed = [kind for kind in kinds if kind.__module__ not in modules or _file(modules[kind.__module__]) is None]
    for kind in sorted(typed, key=lambda kind: kind.__qualname__):
        yield from (f"{kind.__qualname__}.{name} {code_digest(value)}" for name, value in sorted(vars(kind).items()))


def code_digest(value: object) -> str:
    """A digest of a function's bytecode; empty for what has none."""
    code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
    return hashlib.sha256(repr(_described(code)).encode()).hexdigest() if isinstance(code, CodeType) else ""


def _described(code: CodeType) -> tuple[object, ...]:
    return code.co_code, code.co_names, tuple(map(_described_constant, code.co_consts))


def _described_constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _described(value)
    if isinstance(value, frozenset):  # its order is each process's own
        return sorted(map(repr, value))
    return repr(value)


def _files(modules: Iterable[ModuleType]) -> set[Path]:
    """The files of modules and of what is imported there, as far as it is the user's own."""
    found: dict[Path, None] = {}
    open_ = list(modules)
    while open_:
        module = open_.pop()
        file = _file(module)
        if file is None or file in found:
            continue
        found[file] = None
        if not _is_installed(file):
            imported = (_module_of(value) for value in list(vars(module).values()))
            open_ += [m for m in imported if m is not None and (f := _file(m)) is not None and not _is_installed(f)]
    return set(found)


def _module_of(value: object) -> ModuleType | None:
    if isinstance(value, ModuleType):
        return value
    name = getattr(value, "__module__", None) if callable(value) else None
    return sys.modules.get(name) if isinstance(name, str) else None


def _file(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    path = Path(name) if isinstance(name, str) else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _is_installed(file: Path) -> bool:
    if {"site-packages", "dist-packages"}.intersection(file.parts):
        return True
    return any(file.is_relative_to(folder) for folder in _LIBRARIES)


_LIBRARIES = (Path(sysconfig.get_paths()["stdlib"]), Path(torch.__file__).parent, Path(__file__).parents[1])
"""The standard library, torch wherever it was built, and this package."""


def _version(name: str) -> str:
    package = sys.modules.get(name.partition(".")[0])
    return str(getattr(package, "__version__", ""))


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
