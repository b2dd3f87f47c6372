"""Errors are one family, and each is also the builtin a Python programmer expects."""

from __future__ import annotations

import pytest

from dovetail import errors


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error")])
def test_every_error_is_a_dovetail_error(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.DovetailError)


def test_an_unknown_site_reads_as_its_message() -> None:
    error = errors.UnknownSiteError("operation 'fc9' is not in the graph.")
    assert isinstance(error, KeyError)
    assert str(error) == "operation 'fc9' is not in the graph."


def test_an_unknown_name_without_a_near_one_lists_what_is_known() -> None:
    assert errors.unknown_name("metric", "zzz", ["accuracy", "loss"]) == "unknown metric 'zzz'. Known: accuracy, loss."
