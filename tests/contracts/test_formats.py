"""Every format of the catalogue keeps the laws of its family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dovetail.formats import FORMATS, Format, fake_quantise, parse
from dovetail.testing.formats import FORMAT_LAWS, sample_values

TEXTS = (
    "float32",
    "float16",
    "bfloat16",
    "fixed(8,4)",
    "fixed(4,-1)",
    "fixed(6,9)",
    "fixed(16,8)",
    "fixed(32,16)",
    "ufixed(8,4)",
    "fixed(8,auto)",
    "ufixed(5,auto)",
    "int(8)",
    "int(2)",
    "int(16)",
    "int(8,affine)",
    "int(4,affine,mse)",
    "int(8,percentile)",
    "int(4,kl)",
    "int(8,affine,percentile)",
    "int(4,affine,kl,po2)",
    "int(8,po2)",
    "int(8,mse,po2)",
    "minifloat_ieee(8,4,7)",
    "minifloat_ieee(6,3,3)",
    "minifloat_ieee(16,8,127)",
    "minifloat_ieee(8,4,20)",
    "minifloat_ieee(4,1,0)",
    "minifloat_denorm(8,4,7)",
    "minifloat_denorm(5,3,3)",
    "E4M3FN",
    "E5M2",
    "E3M2FN",
    "E2M3FN",
    "E2M1FN",
    "mxint8",
    "mxfp8_e4m3",
    "mxfp8_e5m2",
    "mxfp6_e3m2",
    "mxfp6_e2m3",
    "mxfp4",
    "mxfp4(block=8)",
    "mxfp4(block=all)",
    "mxfp6_e2m3(block=2x16)",
    "mxfp8_e5m2(axis=0)",
    "nvfp4",
    "nvfp4(block=8)",
    "block_fp(8,8,127)",
    "block_fp(4,4,7,block=1x4)",
    "block_minifloat(8,4,8)",
    "block_minifloat(6,3,4,block=8)",
    "block_log(4,8)",
    "block_log(6,5,block=4)",
    "log(8,63)",
    "log(4,5)",
    "binary",
    "binary(zero_one)",
    "binary(scaled)",
    "binary(zero_one,scaled)",
    "binary(stochastic,seed=3)",
    "ternary(mean)",
    "ternary(median)",
    "ternary(max,scaled)",
)


def calibrated(text: str) -> Format:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(7))
    return parse(text).calibrate(values)


def test_every_name_of_the_catalogue_is_tried() -> None:
    assert {text.split("(")[0] for text in TEXTS} == set(FORMATS)


@pytest.mark.parametrize("text", TEXTS)
def test_text_form_is_canonical(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(text) == parse(str(parse(text)))


@pytest.mark.parametrize("law", FORMAT_LAWS, ids=lambda law: law.__name__.removeprefix("law_"))
@pytest.mark.parametrize("text", TEXTS)
def test_law_holds(text: str, law: Callable[[Format], None]) -> None:
    law(calibrated(text))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # from inductor's own modules
@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_compiled_result_is_the_same_to_the_bit(text: str) -> None:
    fmt = calibrated(text)
    x = sample_values(fmt).requires_grad_()
    torch.compiler.reset()
    compiled = torch.compile(lambda value: fake_quantise(value, fmt), fullgraph=True)
    result = compiled(x)
    assert torch.equal(result, fmt.quantise(x.detach()))
    result.sum().backward()
    mask = fmt.in_range(x.detach())
    expected = torch.ones_like(x) if mask is None else mask.float()
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
