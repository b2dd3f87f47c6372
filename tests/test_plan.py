"""A plan is a value: canonical, hashable, and the same after a trip through TOML or JSON."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dovetail.errors import FormatError, PlanError
from dovetail.formats import FLOAT32, FixedPoint, parse
from dovetail.plan import Plan, Site, SiteKind

names = st.text(string.ascii_letters + string.digits + '._-"\\ é', min_size=1, max_size=12)
formats = st.builds(FixedPoint, width=st.integers(1, 32), frac_width=st.integers(-8, 40))
plans = st.builds(
    Plan.of,
    st.dictionaries(st.builds(Site, names, st.sampled_from(SiteKind)), formats, max_size=5),
    st.dictionaries(names, st.integers(1, 4096), max_size=4),
)


@given(plans)
def test_a_plan_survives_toml_and_json(plan: Plan) -> None:
    assert Plan.from_toml(plan.to_toml()) == plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@given(plans)
def test_plans_with_equal_content_are_equal_in_any_order_of_spelling(plan: Plan) -> None:
    respelt = Plan.of(dict(reversed(plan.formats)), dict(reversed(plan.widths)))
    assert respelt == plan
    assert hash(respelt) == hash(plan)
    assert respelt.key == plan.key


def test_float32_at_a_site_says_the_same_as_silence() -> None:
    site = Site("fc", SiteKind.WEIGHT)
    assert Plan.of({site: FLOAT32}) == Plan()
    assert Plan.of({site: FLOAT32}).format(site) is None


def test_a_plan_answers_for_its_sites_and_groups() -> None:
    site = Site("fc", SiteKind.DATA_IN)
    plan = Plan.of({site: parse("fixed(8,4)")}, {"fc": 3})
    assert plan.format(site) == FixedPoint(8, 4)
    assert plan.width("fc") == 3
    assert plan.width("other") is None
    assert plan.precision == {site: FixedPoint(8, 4)}


def test_a_key_is_sixteen_digits_that_tell_plans_apart() -> None:
    keys = {Plan.of(widths={"a": n}).key for n in range(1, 200)}
    assert len(keys) == 199
    assert {len(key) for key in keys} == {16}


@pytest.mark.parametrize("width", [0, -1, 2.5, True])
def test_a_width_is_an_integer_of_at_least_one(width: object) -> None:
    with pytest.raises(PlanError, match="width of group 'a'"):
        Plan.of(widths={"a": width})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[width]\na = 1", "unknown key 'width'. Did you mean 'widths'"),
        ("[formats.fc]\nwheight = 'fixed(8,4)'", "Did you mean 'weight'"),
        ("[formats.fc]\nweight = 8", "p.toml.formats.fc.weight: must be a format's text, got 8"),
        ("formats = 3", "p.toml.formats: must be a table"),
        ("[formats", "p.toml: must be TOML"),
    ],
)
def test_a_text_that_is_no_plan_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_toml(text, where="p.toml")
    assert message in str(caught.value)


def test_a_text_that_names_no_format_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="fixd"):
        Plan.from_toml("[formats.fc]\nweight = 'fixd(8,4)'")


def test_sites_print_and_parse() -> None:
    site = Site("seq_blocks.2", SiteKind.WEIGHT)
    assert str(site) == "seq_blocks.2:weight"
    assert Site.parse(str(site)) == site
    with pytest.raises(PlanError, match="operation:kind"):
        Site.parse("seq_blocks.2")
