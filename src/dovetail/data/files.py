"""Data files: .npz, .csv, .parquet and .h5."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dovetail.data.arrays import Arrays, arrays_from_named
from dovetail.errors import DataError, unknown_name

__all__ = ["FILE_TYPES", "arrays_from_columns", "is_data_file", "read_file"]

_TARGETS = ("y", "label", "target", "class")


def is_data_file(name: str) -> bool:
    """Whether a name ends as a data file's does."""
    return Path(name).suffix.lower() in FILE_TYPES


def read_file(path: str | Path, target: str | None = None) -> Arrays:
    """The arrays in a data file.

    Args:
        path: A .npz, .csv, .parquet, .h5 or .hdf5 file.
        target: Column or array of the labels; None: `y`, `label`, `target` or `class`.

    Raises:
        DataError: The file is missing, corrupt or without the arrays, or a package to read it is not installed.
    """
    file = Path(path)
    if file.suffix.lower() not in FILE_TYPES:
        raise DataError(f"{file}: {unknown_name('kind of file', file.suffix, FILE_TYPES)}")
    if not file.is_file():
        raise DataError(f"{file}: must be a data file; there is none.")
    return FILE_TYPES[file.suffix.lower()](file, target)


def arrays_from_columns(columns: Mapping[str, NDArray[Any]], target: str | None, where: str) -> Arrays:
    """A table: one column holds the labels (numbers from 0, or names), all others the features.

    Raises:
        DataError: No column for labels, or a feature that is not a number.
    """
    label = target if target is not None else next((name for name in _TARGETS if name in columns), None)
    if label is None or label not in columns:
        what = f"no column {label!r}" if label else f"no column called {', '.join(_TARGETS)}"
        raise DataError(f"{where}: {what}; the columns are {', '.join(columns)}. Name the labels' with [data] target.")
    features = {name: column for name, column in columns.items() if name != label}
    for name, column in features.items():
        if column.dtype.kind not in "fiub":
            row = next((row for row, value in enumerate(column) if not _is_number(value)), 0)
            raise DataError(f"{where}: column {name!r} must hold numbers, got {str(column[row])!r} in row {row + 1}.")
    if not features:
        raise DataError(f"{where}: must have at least one column beside the labels, got none.")
    x = np.stack([column.astype(np.float32) for column in features.values()], axis=1)
    y = columns[label]
    names: tuple[str, ...] = ()
    if y.dtype.kind not in "fiub":
        found, y = np.unique(y.astype(str), return_inverse=True)
        names = tuple(str(name) for name in found)
    return Arrays((x, y), class_names=names)


def _is_number(value: object) -> bool:
    try:
        float(str(value).strip() or "nan")
    except ValueError:
        return False
    return True


def _read_npz(file: Path, target: str | None) -> Arrays:
    try:
        with np.load(file, allow_pickle=False) as content:
            named = {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        plain = "allow_pickle" not in str(error)  # NumPy's text would advise to unpickle it
        reason = error if plain else "it is no .npz, or its arrays hold Python objects; give them a dtype of numbers"
        raise DataError(f"{file}: must be a .npz of plain arrays (nothing is unpickled): {reason}") from error
    if target is not None and target in named:
        named["y"] = named.pop(target)
    return arrays_from_named(named, str(file))


def _read_csv(file: Path, target: str | None) -> Arrays:
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            header, *rows = [row for row in csv.reader(handle) if row]
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: must be a table with a header row: {error}") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{file}: line {number}: must have {len(header)} values as the header has, got {len(row)}.")
    if not rows:
        raise DataError(f"{file}: must have at least one row below the header, got none.")
    columns = {name: _column([row[i] for row in rows]) for i, name in enumerate(header)}
    return arrays_from_columns(columns, target, str(file))


def _column(texts: list[str]) -> NDArray[Any]:
    """Numbers where all texts are (an empty one is NaN), else the texts."""
    try:
        return np.array([text.strip() or "nan" for text in texts], dtype=np.float64)
    except ValueError:
        return np.array(texts)


def _read_parquet(file: Path, target: str | None) -> Arrays:
    parquet = _extra("pyarrow.parquet", file)
    try:
        table = parquet.read_table(file)
        columns = {name: np.asarray(table.column(name).to_numpy(zero_copy_only=False)) for name in table.column_names}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: must be a readable .parquet file: {error}") from error
    return arrays_from_columns(columns, target, str(file))


def _read_h5(file: Path, target: str | None) -> Arrays:
    """Arrays by name at the top level, or one table with named fields."""
    h5py = _extra("h5py", file)
    try:
        with h5py.File(file, "r") as content:
            named = {name: np.asarray(item) for name, item in content.items() if isinstance(item, h5py.Dataset)}
    except OSError as error:
        raise DataError(f"{file}: must be a readable HDF5 file: {error}") from error
    tables = [array for array in named.values() if array.dtype.names]
    if len(tables) == 1:
        return arrays_from_columns({name: tables[0][name] for name in tables[0].dtype.names or ()}, target, str(file))
    if target is not None and target in named:
        named["y"] = named.pop(target)
    return arrays_from_named(named, str(file))


def _extra(module: str, file: Path) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"{file}: reading {file.suffix} needs {package}: pip install 'dovetail[files]'.") from error


FILE_TYPES: Mapping[str, Callable[[Path, str | None], Arrays]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
}
