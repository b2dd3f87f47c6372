"""Laws of searches over models that cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dovetail.config import load_config
from dovetail.formats import parse
from dovetail.runs import open_run
from dovetail.session import Session
from tests.cli.conftest import CONFIG, Run

NETWORK = """
import torch
from torch import nn

class Gated(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.fc = nn.Linear(features, 6)
        self.left, self.right = nn.Linear(6, classes), nn.Linear(6, classes)

    def forward(self, x):
        y = torch.relu(self.fc(x))
        if x.sum() > 0:
            return self.left(y)
        return self.right(-y)

def gated(input_shape, classes):
    return Gated(input_shape[0], classes)
"""


@pytest.fixture(scope="module")
def config(project: Path) -> Path:
    (project / "gated.py").write_text(NETWORK)
    path = project / "gated.toml"
    rule = 'operations = "linear"'
    path.write_text(CONFIG.replace("net.py:small", "gated.py:gated").replace(rule, 'operations = "fc"'))
    return path


@pytest.fixture(scope="module")
def out(project: Path, config: Path, run: Run) -> Path:
    folder = project / "gated"
    result = run("search", config, "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder


def test_a_search_over_precision_scores_what_plain_pytorch_computes(config: Path, out: Path) -> None:
    session = Session(load_config(config))
    model, (x,), targets = session.model, session.split.inputs, session.split.targets
    with open_run(out) as study:
        found = {(t.choices[0][1], t.choices[1][1]): t.value("accuracy") for t in study.trials()}
    assert len(found) == 4
    for (data_in, weight), accuracy in found.items():
        q_x, q_w = parse(data_in).quantise, parse(weight).quantise
        with torch.no_grad():
            y = torch.relu(F.linear(q_x(x), q_w(model.fc.weight), model.fc.bias))
            scores = model.left(y) if x.sum() > 0 else model.right(-y)
        assert accuracy == pytest.approx((scores.argmax(1) == targets).double().mean().item(), abs=1e-12)


def test_space_and_profile_say_what_the_figures_rest_on(config: Path, run: Run) -> None:
    shown = run("space", config)
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert "note:" in text
    assert "gated.py:13: if x.sum() > 0" in text
    assert "torch.where" in text
    assert "costs are those of the path that the code takes on the example inputs" in text
    (note,) = json.loads(run("space", config, "--json").stdout)["notes"]
    assert note == json.loads(run("profile", config, "--no-latency", "--json").stdout)["notes"][0]


def test_a_rule_for_widths_is_an_error_that_names_the_line(project: Path, config: Path, run: Run) -> None:
    path = project / "wide.toml"
    path.write_text(config.read_text() + '\n[[space.width]]\ngroups = "fc"\nmultipliers = [1, 2]\n')
    result = run("space", path)
    assert result.exit_code == 2
    assert "group 'fc' is frozen: the model cannot be exported" in result.stderr
    assert "gated.py:13: if x.sum() > 0" in result.stderr


@pytest.mark.parametrize("stacked", ["false", "true"])
def test_candidates_can_be_trained(project: Path, config: Path, run: Run, stacked: str) -> None:
    path = project / f"trained-{stacked}.toml"
    text = config.read_text().replace("epochs = 8", f"epochs = 2\nstacked = {stacked}")
    path.write_text(text + '\n[evaluation]\nprotocol = "train"\n')
    result = run("search", path, "--out", project / f"trained-{stacked}", "--trials", 2)
    assert result.exit_code == 0, result.stderr
    with open_run(project / f"trained-{stacked}") as study:
        assert [trial.state for trial in study.trials()] == ["complete", "complete"]


def test_candidates_can_race(project: Path, config: Path, run: Run) -> None:
    path = project / "racing.toml"
    path.write_text(config.read_text() + "\n[evaluation]\nracing_confidence = 0.9\n")
    result = run("search", path, "--out", project / "racing")
    assert result.exit_code == 0, result.stderr
    with open_run(project / "racing") as study:
        assert [trial.state for trial in study.trials()] == ["complete"] * 4
