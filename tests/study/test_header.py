from __future__ import annotations

import pytest

from dovetail.errors import StudyError
from dovetail.formats import parse
from dovetail.plan import Plan, Site, SiteKind
from dovetail.study import StudyHeader


def test_a_header_survives_json(header: StudyHeader) -> None:
    assert StudyHeader.from_json(header.to_json()) == header


def test_a_row_and_the_header_make_the_plan(header: StudyHeader) -> None:
    assert header.plan((1, 1)) == Plan.of({Site("fc", SiteKind.WEIGHT): parse("fixed(4,2)")}, {"fc": 64})
    assert header.labels((1, 0)) == (("fc:weight", "fixed(4,2)"), ("fc:width", "x1"))
    assert header.size == 4


def test_a_text_that_is_no_header_is_refused() -> None:
    with pytest.raises(StudyError, match="its header cannot be read"):
        StudyHeader.from_json('{"decisions": 3}')
