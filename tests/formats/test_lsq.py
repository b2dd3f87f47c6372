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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_half_precision_tensors_are_summed_in_float32(dtype: torch.dtype) -> None:
    quantiser = LearnedStep(0.0131, 8)
    x = torch.full((4000,), 4.0, dtype=dtype, requires_grad=True)
    quantiser(x).backward(torch.full((4000,), 8.0, dtype=dtype))
    # v = 305 lies outside: 4000 * 8 * 127 = 4,064,000, beyond float16's 65,504 before the division.
    assert quantiser.step.grad is not None
    assert quantiser.step.grad.item() == pytest.approx(4000 * 8 * 127 / math.sqrt(4000 * 127), rel=1e-6)
    assert x.grad is not None
    assert (x.grad.dtype, x.grad.any().item()) == (dtype, False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_half_precision_tensors_pass_where_the_forward_did_not_clip(dtype: torch.dtype) -> None:
    values = (torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    gradients = []
    for carrier in (dtype, torch.float32):
        x = values.to(carrier, copy=True).requires_grad_()
        LearnedStep(0.0131, 8)(x).backward(torch.ones(20_000, dtype=carrier))
        assert x.grad is not None
        gradients.append(x.grad.float())
    assert torch.equal(*gradients)


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
