"""The straight-through gradient."""

from __future__ import annotations

import torch

from dovetail.formats import FLOAT32, FixedPoint, fake_quantise


def test_forward_is_quantise() -> None:
    x = torch.randn(100, requires_grad=True)
    fmt = FixedPoint(8, 4)
    assert torch.equal(fake_quantise(x, fmt), fmt.quantise(x))


def test_gradient_is_one_inside_the_range_and_zero_outside() -> None:
    x = torch.tensor([-9.0, -8.0, 0.3, 7.9375, 8.0], requires_grad=True)
    fake_quantise(x, FixedPoint(8, 4)).backward(torch.full((5,), 3.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 3.0, 3.0, 3.0, 0.0]


def test_gradient_works_under_grad_and_vmap() -> None:
    x = torch.tensor([[0.3, 100.0], [-0.2, -100.0]])
    gradient = torch.func.vmap(torch.func.grad(lambda row: fake_quantise(row, FixedPoint(8, 4)).sum()))(x)
    assert gradient.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_float32_changes_nothing() -> None:
    x = torch.randn(10, requires_grad=True)
    y = fake_quantise(x, FLOAT32)
    y.sum().backward()
    assert torch.equal(y, x)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(10))
