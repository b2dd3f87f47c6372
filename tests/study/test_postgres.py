"""A study in PostgreSQL, where there is one: `DOVETAIL_POSTGRES=postgresql+psycopg://user@host/db`."""

from __future__ import annotations

import os
import uuid

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dovetail.errors import StudyError
from dovetail.record import Trial
from dovetail.study import Study, StudyHeader
from dovetail.study.tables import statements

URL = os.environ.get("DOVETAIL_POSTGRES", "")


def test_statements_are_spelled_as_the_driver_takes_them() -> None:
    ask = statements(PGDialect_psycopg())
    assert "LIMIT 1000" in ask.trials_after.text
    assert "%(study)s" in ask.trials_after.text
    assert "%(after)s" in ask.trials_after.text
    assert ask.trials_after.bind(7, 41) == {"study": 7, "after": 41}
    assert "RETURNING" not in ask.add_study.text


@pytest.mark.skipif(not URL, reason="DOVETAIL_POSTGRES names no server")
def test_trials_come_back_to_the_bit_and_a_batch_is_all_or_nothing(header: StudyHeader, trials: list[Trial]) -> None:
    name = uuid.uuid4().hex
    with Study.create(URL, name, header) as study:
        study.append(trials[2:])
        with pytest.raises(StudyError, match="another search is writing this study"):
            study.append(trials)
        with Study.open(URL, name) as reading:
            assert reading.trials() == trials[2:]
        study.append(trials[:2])
    with Study.create(URL, name, header) as study:
        assert study.header == header
        assert study.trials() == trials
        assert study.num_trials == 4


@pytest.mark.skipif(not URL, reason="DOVETAIL_POSTGRES names no server")
def test_a_server_that_is_not_there_is_an_error_that_hides_the_password(header: StudyHeader) -> None:
    with pytest.raises(StudyError, match="cannot be read or written") as caught:
        Study.create("postgresql+psycopg://me:secret@127.0.0.1:1/none", "a", header)
    assert "secret" not in str(caught.value)
