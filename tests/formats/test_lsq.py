"""Learned step size."""

from __future__ import annotations

import math

import pytest
import torch

from dovetail.errors import FormatError
from dovetail.formats.lsq import LearnedStep


def test_forward_is_the_format_it_arrives_at() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for signed in (True, False):
        quantiser = LearnedStep(0.013, 5, signed=signed)
        assert torch.equal(quantiser(x), quantiser.format().quantise(x))


def test_gradients_are_those_of_the_paper() -> None:
    quantiser = LearnedStep(0.5, 3)  # integers -3 to 3
    x = torch.tensor([0.6, -0.4, 5.0, -7.0], requires_grad=True)
    quantiser(x).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    # v = 1.2, -0.8, 10, -14; round(v) - v = -0.2, -0.2; outside 3 and -3
    expected = (1 * -0.2 + 2 * -0.2 + 3 * 3 + 4 * -3) / math.sqrt(4 * 3)
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 0.0, 0.0]
    assert quantiser.step.grad is not None
    assert quantiser.step.grad.item() == pytest.approx(expected, rel=1e-6)


def test_first_step_is_that_of_the_paper() -> None:
    x = torch.tensor([1.0, -3.0])
    assert LearnedStep.fit(x, 4).step.item() == pytest.approx(2 * 2 / math.sqrt(7))


def test_training_the_step_lowers_the_error() -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    quantiser = LearnedStep(0.02, 4)
    optimiser = torch.optim.SGD(quantiser.parameters(), lr=0.05)
    before = (quantiser(x) - x).square().mean().item()
    for _ in range(200):
        optimiser.zero_grad()
        (quantiser(x) - x).square().sum().backward()
        optimiser.step()
    assert (quantiser(x) - x).square().mean().item() < before / 10


def test_a_step_of_zero_is_refused() -> None:
    with pytest.raises(FormatError, match="must be a positive number, got 0"):
        LearnedStep(0.0, 4)
