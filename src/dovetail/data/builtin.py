"""Built-in data sets: each a function (config, seed) -> Dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dovetail.data.arrays import Arrays
from dovetail.data.dataset import Dataset
from dovetail.data.files import arrays_from_columns, read_file
from dovetail.data.prepare import prepare
from dovetail.errors import DataError
from dovetail.settings import DataConfig

__all__ = ["cifar10", "digits_4x4", "digits_8x8", "digits_64", "jsc_cernbox", "jsc_openml"]

OPENML_ID = 42468
_CIFAR_MEAN, _CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_JSC_FEATURES = (
    "zlogz c1_b0_mmdt c1_b1_mmdt c1_b2_mmdt c2_b1_mmdt c2_b2_mmdt d2_b1_mmdt d2_b2_mmdt d2_a1_b1_mmdt d2_a1_b2_mmdt "
    "m2_b1_mmdt m2_b2_mmdt n2_b1_mmdt n2_b2_mmdt mass_mmdt multiplicity"
)
_JSC_CLASSES = ("g", "q", "w", "z", "t")


def digits_64(config: DataConfig, seed: int) -> Dataset:
    """1,797 handwritten digits as 64 pixel values, 10 classes: UCI's, as shipped inside scikit-learn."""
    images, labels = _digits(config)
    return prepare(
        Arrays((images.reshape(len(images), 64), labels)), config, seed=seed, origin="scikit-learn digits, 64 pixels"
    )


def digits_4x4(config: DataConfig, seed: int) -> Dataset:
    """The same digits averaged over 2 x 2 pixels: 16 features, so that the 16-input networks run on real data
    offline.
    """
    images, labels = _digits(config)
    pooled = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return prepare(
        Arrays((pooled, labels)), config, seed=seed, origin="scikit-learn digits, pooled to 4x4 = 16 features"
    )


def digits_8x8(config: DataConfig, seed: int) -> Dataset:
    """The same digits as images of one channel, 8 x 8, scaled to 0 to 1."""
    images, labels = _digits(config)
    return prepare(
        Arrays((images[:, None] / 16, labels)), config, seed=seed, origin="scikit-learn digits, 1x8x8 images"
    )


def jsc_openml(config: DataConfig, seed: int) -> Dataset:
    """Jet substructure classification, the OpenML version (`hls4ml_lhc_jets_hlf`, id 42468): 830,000 jets, 16
    features, 5 classes.

    Read from `args.path`, else from `jsc-openml.npz` in the folder `DOVETAIL_DATA`, else fetched by scikit-learn and
    kept in its cache.

    Raises:
        DataError: There is no file and no network.
    """
    file = _local_file(config, "jsc-openml", (".npz", ".parquet", ".csv", ".h5"))
    arrays = _fetch_openml() if file is None else read_file(file, config.target)
    return prepare(arrays, config, seed=seed, origin="JSC, OpenML version (hls4ml_lhc_jets_hlf, id 42468)")


def jsc_cernbox(config: DataConfig, seed: int) -> Dataset:
    """Jet substructure classification, the older CERNBox version, about one point of accuracy apart from the OpenML
    one.

    Read from `args.path` or from `jsc-cernbox.h5` (or .npz, .z) in the folder `DOVETAIL_DATA`: its HDF5 table of
    columns `j_...` (16 features; classes one-hot in `j_g, j_q, j_w, j_z, j_t`), or arrays `x, y` made from it.

    Raises:
        DataError: There is no file.
    """
    file = _local_file(config, "jsc-cernbox", (".h5", ".z", ".npz"))
    if file is None:
        raise DataError(
            "data 'jsc-cernbox': must have a local file: give [data] args = { path = '...' }, or put jsc-cernbox.h5 "
            "into the folder "
            "that DOVETAIL_DATA names. 'jsc-openml' is the version that is fetched by itself."
        )
    arrays = _cernbox_table(file) if file.suffix in (".h5", ".z") else read_file(file, config.target)
    return prepare(arrays, config, seed=seed, origin="JSC, CERNBox version")


def cifar10(config: DataConfig, seed: int) -> Dataset:
    """CIFAR-10 from `args.path` or `cifar10.npz` in the folder `DOVETAIL_DATA`, normalised by ImageNet's mean and
    deviation.

    Raises:
        DataError: There is no file.
    """
    file = _local_file(config, "cifar10", (".npz",))
    if file is None:
        raise DataError(
            "data 'cifar10': must have a local file of x_train, y_train, x_test, y_test: give [data] args = "
            "{ path = '...' }, or put "
            "cifar10.npz into the folder that DOVETAIL_DATA names."
        )
    return prepare(read_file(file), config, seed=seed, origin="CIFAR-10", mean=_CIFAR_MEAN, std=_CIFAR_STD)


def _digits(config: DataConfig) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # half a second to import; only those who use it wait

    if config.args:
        raise DataError(f"data.args: {config.name!r} takes none, got {', '.join(config.args)}.")
    found = load_digits()
    return found.images, found.target


def _local_file(config: DataConfig, stem: str, suffixes: tuple[str, ...]) -> Path | None:
    if unknown := sorted(set(config.args) - {"path"}):
        raise DataError(f"data.args: {config.name!r} takes path alone, got {', '.join(unknown)}.")
    if (path := config.args.get("path")) is not None:
        if not Path(path).is_file():
            raise DataError(f"data.args.path: must be a file; there is none at {path!r}.")
        return Path(path)
    folder = os.environ.get("DOVETAIL_DATA")
    files = [Path(folder) / f"{stem}{suffix}" for suffix in suffixes] if folder else []
    return next((file for file in files if file.is_file()), None)


def _fetch_openml() -> Arrays:
    from importlib.util import find_spec

    from sklearn.datasets import fetch_openml

    parser = "pandas" if find_spec("pandas") else "liac-arff"
    try:
        found = fetch_openml(data_id=OPENML_ID, as_frame=False, parser=parser)
    except (OSError, ValueError) as error:
        raise DataError(
            f"data 'jsc-openml': OpenML cannot be reached ({error}). Give a local copy with [data] args = "
            f"{{ path = '...' }}, or put "
            "jsc-openml.npz (x, y) into the folder that DOVETAIL_DATA names."
        ) from error
    columns: dict[str, NDArray[Any]] = {
        str(i): column for i, column in enumerate(np.asarray(found.data, dtype=np.float64).T)
    }
    return arrays_from_columns({**columns, "class": np.asarray(found.target)}, "class", "OpenML 42468")


def _cernbox_table(file: Path) -> Arrays:
    import h5py

    try:
        with h5py.File(file, "r") as content:
            table = np.asarray(next(iter(content.values())))
    except (OSError, StopIteration) as error:
        raise DataError(f"{file}: must be the HDF5 table of the CERNBox jets: {error}") from error
    fields = [f"j_{name}" for name in _JSC_FEATURES.split()]
    classes = [f"j_{name}" for name in _JSC_CLASSES]
    if missing := sorted(set(fields + classes) - set(table.dtype.names or ())):
        raise DataError(f"{file}: lacks the columns {', '.join(missing)}.")
    x = np.stack([table[name].astype(np.float32) for name in fields], axis=1)
    y = np.argmax(np.stack([table[name] for name in classes], axis=1), axis=1)
    return Arrays((x, y), class_names=_JSC_CLASSES)
