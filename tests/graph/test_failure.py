"""Laws of models that resist tracing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dovetail.errors import TraceError
from dovetail.graph import trace


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.sum() > 0:  # the line at fault
            raise ValueError("positive")
        raise ValueError("negative")


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(x.shape[0], 3, 4).flatten(1))


def test_control_flow_on_values_in_a_model_that_does_not_run_is_an_error_that_names_the_line_and_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"test_failure\.py:\d+: if y\.sum\(\) > 0.*torch\.where"):
        trace(Refusing(), (torch.randn(2, 4),))


def test_a_width_that_tracing_fixed_is_a_frozen_group_that_names_the_line() -> None:
    group = trace(Fixed(), (torch.randn(2, 8),)).group("a")
    assert group.base == 12
    assert group.frozen is not None
    assert "test_failure.py" in group.frozen
    assert "view(x.shape[0], 3, 4)" in group.frozen
