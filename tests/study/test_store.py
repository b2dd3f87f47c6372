from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from dovetail.errors import StudyError
from dovetail.record import Trial, TrialState
from dovetail.study import Study, StudyHeader, shown
from dovetail.study.statements import PAGE, SQLITE, STUDIES, TRIALS
from dovetail.study.tables import statements


def test_trials_come_back_to_the_bit_and_in_order(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    with Study.create(tmp_path / "study.db", "a", header) as study:
        study.append(trials[2:])
        study.append(trials[:2])
    with Study.open(tmp_path / "study.db") as study:
        assert study.header == header
        assert study.trials() == trials
        assert study.num_trials == 4


def test_a_url_is_a_storage_as_a_file_is(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with Study.create(url, "a", header) as study:
        study.append(trials)
    assert Study.open(tmp_path / "shared.db", "a").trials() == trials


def test_one_storage_keeps_several_studies_apart(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    for name in ("a", "b"):
        with Study.create(tmp_path / "s.db", name, header) as study:
            study.append(trials[:2] if name == "a" else trials[2:])
    assert [t.number for t in Study.open(tmp_path / "s.db", "b").trials()] == [2, 3]
    with pytest.raises(StudyError, match=r"holds 2 studies \(a, b\): say which"):
        Study.open(tmp_path / "s.db")
    with pytest.raises(StudyError, match="unknown study 'c'"):
        Study.open(tmp_path / "s.db", "c")


def test_a_study_of_the_same_identity_goes_on_and_of_another_names_the_differing_key(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    with Study.create(tmp_path / "s.db", "a", header) as study:
        study.append(trials[:1])
    later = dataclasses.replace(header, created_at="2027-01-01T00:00:00+00:00")
    assert Study.create(tmp_path / "s.db", "a", later).num_trials == 1
    other = dataclasses.replace(header, identity=(("data.name", '"jsc"'), ("search.seed", "3")))
    with pytest.raises(StudyError, match=r'data\.name is "digits" there and "jsc" here'):
        Study.create(tmp_path / "s.db", "a", other)


def test_a_batch_is_all_or_nothing(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    with Study.create(tmp_path / "s.db", "a", header) as study:
        study.append(trials[1:2])
        with pytest.raises(StudyError, match="another search is writing this study"):
            study.append(trials)
        assert study.trials() == trials[1:2]


def test_what_is_appended_can_be_read_while_the_study_is_open_elsewhere(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    with Study.create(tmp_path / "s.db", "a", header) as writing:
        writing.append(trials[:3])
        with Study.open(tmp_path / "s.db") as reading:
            assert reading.num_trials == 3
            writing.append(trials[3:])
            assert reading.num_trials == 4


def test_files_left_by_a_killed_process_hold_the_study_and_every_batch_appended(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    def killed_now(name: str) -> Path:
        """The files as they are, which is what a killed process leaves."""
        for file in tmp_path.glob("s.db*"):
            shutil.copy(file, tmp_path / file.name.replace("s.db", f"{name}.db"))
        return tmp_path / f"{name}.db"

    with Study.create(tmp_path / "s.db", "a", header) as study:
        assert Study.open(killed_now("before")).trials() == []
        study.append(trials[:3])
        assert Study.open(killed_now("after")).trials() == trials[:3]


def test_only_the_transaction_that_makes_the_file_does_not_wait_for_the_disk(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    def synchronous(study: Study) -> int:
        with study._database.writing() as cursor:
            return int(cursor.execute("PRAGMA synchronous").fetchall()[0][0])  # type: ignore[attr-defined]

    full = 2  # a commit returns when the disk has it
    with Study.create(tmp_path / "s.db", "a", header) as study:
        assert synchronous(study) == full
    with Study.open(tmp_path / "s.db") as study:
        assert synchronous(study) == full


def test_pages_of_trials_follow_each_other_whatever_their_numbers(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    many = [dataclasses.replace(trials[1], number=3 * number) for number in range(2 * PAGE + 1)]
    with Study.create(tmp_path / "s.db", "a", header) as study:
        study.append(many[: 2 * PAGE])
        assert [t.number for t in study.iterate()] == [t.number for t in many[:-1]]
        study.append(many[-1:])
        assert study.trials() == many


def test_a_missing_storage_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no such study"):
        Study.open(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_study_is_an_error(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("create table t (x)").connection.close()
    with pytest.raises(StudyError, match="holds no study"):
        Study.open(tmp_path / "other.db")


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path, header: StudyHeader) -> None:
    (tmp_path / "s.db").write_text("hello " * 1000)
    with pytest.raises(StudyError, match="not a database"):
        Study.create(tmp_path / "s.db", "a", header)


def test_a_damaged_trial_names_itself(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    with Study.create(tmp_path / "s.db", "a", header) as study:
        study.append(trials)
    connection = sqlite3.connect(tmp_path / "s.db")
    with connection:
        connection.execute("update dovetail_trial set row = '[0, 9]' where number = 1")
    connection.close()
    with pytest.raises(StudyError, match="trial 1 cannot be read"):
        Study.open(tmp_path / "s.db").trials()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path, header: StudyHeader) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="choose another with --out or --storage"):
        Study.create(tmp_path / "s.db", "a", header)


def test_a_missing_folder_is_an_error_with_a_way_out(tmp_path: Path, header: StudyHeader) -> None:
    with pytest.raises(StudyError, match="choose another with --out or --storage"):
        Study.create(tmp_path / "none" / "s.db", "a", header)


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    with Study.create(tmp_path / "s.db", "a", header) as study:
        study.append(trials[:2])
        heavy = [dataclasses.replace(t, state=TrialState.FAILED, reason="x" * 50_000, score=None) for t in trials[2:]]
        with study._database.writing() as cursor:  # SQLite's own limit stands in for a disk of that size
            cursor.execute("PRAGMA page_count")
            cursor.execute(f"PRAGMA max_page_count = {cursor.fetchall()[0][0] + 2}")
        with pytest.raises(StudyError, match=r"full.*Free some space and run the same command again"):
            study.append(heavy)
        assert study.trials() == trials[:2]


def test_passwords_are_never_shown() -> None:
    assert shown("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"
    assert shown("runs/a/study.db") == "runs/a/study.db"


def test_sqlite_has_the_tables_and_parameters_that_other_databases_have() -> None:
    def columns(create_tables: tuple[str, ...]) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(":memory:")
        for text in create_tables:
            connection.execute(text)
        found = [row for name in (STUDIES, TRIALS) for row in connection.execute(f"PRAGMA table_info({name})")]
        keys = [row for name in (STUDIES, TRIALS) for row in connection.execute(f"PRAGMA foreign_key_list({name})")]
        unique = [row[2:] for name in (STUDIES, TRIALS) for row in connection.execute(f"PRAGMA index_list({name})")]
        return [*found, *keys, *unique]

    spelled = statements(SQLiteDialect_pysqlite())
    assert columns(SQLITE.create_tables) == columns(spelled.create_tables)
    for name in ("all_studies", "study_named", "add_study", "add_trial", "trials_after", "count_trials"):
        ours, theirs = getattr(SQLITE, name), getattr(spelled, name)
        assert ours.text.count("?") == theirs.text.count("?") == len(theirs.names)


def test_a_sqlite_url_with_options_is_refused_rather_than_misread(header: StudyHeader) -> None:
    with pytest.raises(StudyError, match="give its path"):
        Study.create("sqlite:///x.db?mode=ro", "a", header)


def test_a_study_in_a_file_needs_no_sqlalchemy() -> None:
    program = "import sys; sys.modules['sqlalchemy'] = None; import dovetail.study; print('ok')"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "ok\n"


def test_a_driver_that_is_not_installed_is_named(header: StudyHeader) -> None:
    with pytest.raises(StudyError, match="needs a driver that is not installed"):
        Study.create("nonsense://me:secret@host/db", "a", header)
