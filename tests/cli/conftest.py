from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dovetail.cli import main

NETWORK = """
from torch import nn

def small(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 6), nn.ReLU(), nn.Linear(6, classes))
"""

CONFIG = """
[model]
name = "net.py:small"

[data]
name = "points.npz"
batch_size = 32

[train]
epochs = 8
learning_rate = 5e-2

[[space.precision]]
operations = "linear"
data_in = ["fixed(8,4)", "fixed(4,2)"]
weight = ["fixed(8,6)", "fixed(3,2)"]

[search]
strategy = "brute-force"

[search.metrics]
accuracy = { direction = "maximize" }
average_bitwidth = { direction = "minimize", scale = 0.2 }
"""

Run = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are cached where the tests can see them, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOVETAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a network of their own, two clouds of points in a file, a configuration of 16 plans."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[y]
    np.savez(folder / "points.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    (folder / "net.py").write_text(NETWORK)
    (folder / "run.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    """Call the command line in this process."""

    def call(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture(scope="module")
def searched(project: Path, run: Run) -> Path:
    """The folder of a search that has ended."""
    folder = project / "searched"
    result = run("search", project / "run.toml", "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder
