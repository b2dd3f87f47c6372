"""What every test may count on: one thread, a fixed seed to start from, and the validation data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "dovetail",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("dovetail")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Tests may draw random tensors without naming a seed; each starts from the same one."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def validation_data() -> Path:
    """The folder of real data and trained networks; tests that ask for it skip where it is not."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DOVETAIL_DATA", beside))
    if not (folder / "README.md").exists():
        pytest.skip(f"no validation data in {folder}; set DOVETAIL_DATA to its folder")
    return folder
