"""Ctrl-C and `kill`, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dovetail.errors import StudyError
from dovetail.runs import open_run
from tests.cli.conftest import CONFIG, Run

SLOW_NETWORK = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.fc = nn.Linear(inputs, 6)
        self.out = nn.Linear(6, classes)

    def forward(self, x):
        time.sleep(0.02)
        return self.out(self.fc(x).relu())

def slow(input_shape, classes):
    return Slow(input_shape[0], classes)
"""


def num_trials(folder: Path) -> int:
    try:
        with open_run(folder) as study:
            return study.num_trials
    except (StudyError, ValueError):
        return 0


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)])
def test_ctrl_c_and_kill_keep_every_trial_and_the_same_command_goes_on(
    sent: signal.Signals, workers: int, project: Path, run: Run
) -> None:
    (project / "slow.py").write_text(SLOW_NETWORK)
    text = CONFIG.replace("net.py:small", "slow.py:slow").replace("epochs = 8", "epochs = 6")
    text = f'workers = {workers}\n{text}\n[evaluation]\nprotocol = "train"\n'
    (project / "slow.toml").write_text(text)
    folder = project / f"interrupted-{sent.name}-{workers}"
    command = [sys.executable, "-m", "dovetail", "search", str(project / "slow.toml"), "--out", str(folder)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while num_trials(folder) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, sent)  # as terminals and schedulers do: its workers, too
    _, errors = process.communicate(timeout=60)
    kept = num_trials(folder)
    assert process.returncode == 1, errors
    assert f"stopped: {kept} trials are kept" in errors
    assert "Traceback" not in errors
    assert 3 <= kept < 16
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
    with open_run(folder) as study:
        before = {trial.row: trial for trial in study.trials()}
    result = run("search", project / "slow.toml", "--out", folder)
    assert f"{16 - kept} new trials" in result.stdout
    with open_run(folder) as study:
        after = {trial.row: trial for trial in study.trials()}
    assert len(after) == 16
    assert all(after[row] == trial for row, trial in before.items())
