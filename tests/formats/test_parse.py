"""The text form of formats."""

from __future__ import annotations

import pytest

from dovetail.errors import FormatError
from dovetail.formats import FLOAT32, FixedPoint, parse


def test_texts_name_formats() -> None:
    assert parse("float32") is FLOAT32
    assert parse(" fixed( 8 , -4 ) ") == FixedPoint(8, -4)
    assert parse("ufixed(8,4)") == FixedPoint(8, 4, signed=False)
    assert parse("fixed(frac_width=4, width=8)") == FixedPoint(8, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixd(8,4)", "unknown format 'fixd'. Did you mean 'fixed'"),
        ("fixed(8)", "frac_width is missing"),
        ("fixed(8,4,2)", "fixed does not take 2"),
        ("fixed(8,4,depth=2)", "fixed does not take depth=2"),
        ("fixed(8,x)", "frac_width must be a whole number, got 'x'"),
        ("fixed(8,4", "must look like name"),
        ("fixed(width=8,width=9,frac_width=2)", "width is given twice"),
        ("", "must look like name"),
        ("float32(8)", "float32 does not take 8"),
    ],
)
def test_a_wrong_text_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(FormatError) as error:
        parse(text)
    assert message in str(error.value)
