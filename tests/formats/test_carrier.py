"""Rounding tensors of any layout: what it costs in memory, and that the layout stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dovetail.formats import parse

TEXTS = (
    "fixed(8,4)",
    "float16",
    "E4M3FN",
    "int(8)",
    "int(8,channel)",
    "mxfp4",
    "mxfp4(axis=0)",
    "nvfp4",
    "block_fp(8,8,127,block=2x16)",
    "block_log(4,8)",
    "log(8,63)",
    "binary",
    "binary(stochastic)",
    "ternary(mean)",
)

LAYOUTS = {
    "contiguous": lambda: torch.randn(1024, 1024),
    "half": lambda: torch.randn(1024, 1024).bfloat16(),
    "transposed": lambda: torch.randn(1024, 1024).t(),
    "transposed half": lambda: torch.randn(1024, 1024).bfloat16().t(),
    "strided": lambda: torch.randn(1024, 2048)[:, ::2],
    "ragged": lambda: torch.randn(1000, 1007),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", TEXTS)
def test_no_more_than_two_temporaries_of_the_inputs_size(text: str, layout: str) -> None:
    x = LAYOUTS[layout]()
    fmt = parse(text).calibrate(x.float())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as session:
        fmt.quantise(x)
    live = peak = 0
    for event in session.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    size = x.numel() * x.element_size()
    assert peak - size <= 2.01 * size  # a hundredth for scales and for what fills partial blocks up


@pytest.mark.parametrize("text", ["fixed(8,4)", "E4M3FN", "bfloat16", "log(4,5)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_channels_last_stays_and_rounds_alike(text: str, dtype: torch.dtype) -> None:
    x = torch.randn(8, 16, 24, 24).to(dtype)
    fmt = parse(text)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(0, 2).contiguous().transpose(0, 2)):
        result = fmt.quantise(other)
        assert result.stride() == other.stride()
        assert torch.equal(result, fmt.quantise(x))
        assert torch.equal(fmt.quantise_(other.clone()), result)


def spread(x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


@pytest.mark.parametrize("text", ["fixed(8,4)", "mxfp4", "binary(stochastic)"])
def test_strided_and_expanded_tensors_round_as_their_copies(text: str) -> None:
    fmt = parse(text)
    x = torch.randn(600, 600)
    assert torch.equal(fmt.quantise(spread(x)), fmt.quantise(x))
    wide = x[:1].expand(600, 600)
    assert torch.equal(fmt.quantise(wide), fmt.quantise(wide.contiguous()))
