"""Formats from chop's configuration keys."""

from __future__ import annotations

import pytest

from dovetail.errors import FormatError
from dovetail.formats.chop_keys import CHOP_KEYS, formats_from_chop


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        (
            {"name": ["integer"], "weight_width": [8, 4], "weight_frac_width": ["NA", -1, 9]},
            ["fixed(8,4)", "fixed(8,-1)", "fixed(8,9)", "fixed(4,2)", "fixed(4,-1)", "fixed(4,9)"],
        ),
        (
            {"name": ["minifloat_ieee"], "weight_width": [8], "weight_exponent_width": [4, 5],
             "weight_exponent_bias": ["NA"]},
            ["minifloat_ieee(8,4,7)", "minifloat_ieee(8,5,15)"],
        ),
        (
            {"name": "minifloat_denorm", "weight_width": 8, "weight_exponent_width": 4, "weight_exponent_bias": 3},
            ["minifloat_denorm(8,4,3)"],
        ),
        ({"name": ["log"], "weight_width": [8, 4], "weight_exponent_bias": ["none"]}, ["log(8,63)", "log(4,3)"]),
        (
            {"name": ["block_fp"], "weight_width": [8], "weight_exponent_width": [8], "weight_exponent_bias": ["NA"],
             "weight_block_size": [[1, 16], 32]},
            ["block_fp(8,8,127,block=1x16)", "block_fp(8,8,127,block=32)"],
        ),
        (
            {"name": ["block_minifloat"], "weight_width": [8], "weight_exponent_width": [4],
             "weight_exponent_bias_width": [8], "weight_block_size": [[-1]]},
            ["block_minifloat(8,4,8,block=all)"],
        ),
        (
            {"name": ["block_log"], "weight_width": [4], "weight_exponent_bias_width": [8],
             "weight_block_size": [[16]]},
            ["block_log(4,8)"],
        ),
        (
            {"name": ["binary"], "weight_width": [1], "weight_stochastic": [False, True], "weight_bipolar": [True]},
            ["binary", "binary(stochastic)"],
        ),
        (
            {"name": ["ternary"], "weight_width": [2], "weight_scaling_factor": [True], "weight_mean": [None],
             "weight_median": [None], "weight_max": [True]},
            ["ternary(max,scaled)"],
        ),
        ({"name": ["NA", "integer"], "weight_width": [8, 8], "weight_frac_width": [4]}, ["fixed(8,4)"]),
        ({"name": ["integer"], "data_in_width": [8], "data_in_frac_width": [4]}, []),
    ],
)  # fmt: skip
def test_lists_are_crossed(config: dict[str, object], texts: list[str]) -> None:
    assert [str(fmt) for fmt in formats_from_chop("weight", config)] == texts


def test_prefixes_choose_the_tensor() -> None:
    config = {"name": ["integer"], "data_in_width": [8], "data_in_frac_width": [3], "bias_width": [4]}
    assert [str(fmt) for fmt in formats_from_chop("data_in", config)] == ["fixed(8,3)"]
    assert [str(fmt) for fmt in formats_from_chop("bias", config)] == ["fixed(4,2)"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": ["intger"], "weight_width": [8]}, "Did you mean 'integer'"),
        ({"name": ["minifloat_ieee"], "weight_width": [8]}, "weight_exponent_width: minifloat_ieee needs a value"),
        (
            {"name": ["minifloat_ieee"], "weight_width": [4], "weight_exponent_width": [6]},
            "minifloat_ieee with weight_width = 4",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_key(config: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError) as error:
        formats_from_chop("weight", config)
    assert message in str(error.value)


def test_every_quantiser_names_its_keys() -> None:
    assert {"integer", "fixed", "minifloat_ieee", "minifloat_denorm", "log", "block_fp", "block_minifloat",
            "block_log", "binary", "ternary"} == set(CHOP_KEYS)  # fmt: skip
