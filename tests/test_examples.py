"""Every example runs as it stands, and finds what its first line promises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dovetail.api import SearchResult, load, search, train
from dovetail.config import read_config
from dovetail.plan import Plan
from dovetail.search.run import End

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZES = {  # plans in the space; the search evaluates all of them, or the trials that the file asks for
    "precision-by-type": (16, 16),
    "precision-by-name": (36, None),
    "width-uniform": (6, 6),
    "width-per-layer": (25, 25),
    "precision-and-width": (54, 20),
    "demo": (4096, 4096),
    "chop-precision": (None, 20),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = tmp_path_factory.mktemp("checkout") / "examples"
    shutil.copytree(EXAMPLES, copied)
    return copied


def run(folder: Path, name: str) -> SearchResult:
    config, _ = read_config(folder / f"{name}.toml")
    if config.model.checkpoint is not None and not Path(config.model.checkpoint).exists():
        train(config)
    return search(config, out=folder.parent / "runs" / name / "search")


def test_every_example_has_its_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_an_example_searches_its_space(folder: Path, name: str) -> None:
    size, trials = SIZES[name]
    result = run(folder, name)
    assert size is None or result.certificate.size == size
    assert trials is None or len(result.run.trials) == trials
    assert all(trial.is_complete for trial in result.run.trials)
    assert result.run.end in (End.EXHAUSTED, End.BUDGET)
    assert result.front
    assert result.best is not None
    for plan_file in sorted((result.files.folder / "pareto").glob("*.toml")):
        Plan.from_toml(plan_file.read_text())
    assert load(result.files.folder) is not None


def test_a_constraint_keeps_the_answer_within_it(folder: Path) -> None:
    result = run(folder, "precision-by-name")
    assert result.certificate.wanted is not None
    assert result.certificate.wanted < result.certificate.distinct
    assert all(trial.value("model_bytes") <= 3 * 1024 for trial in result.front)
    assert "this is the optimum" in str(result.certificate)
