"""A study as an Optuna study, for that ecosystem's dashboards and analyses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from dovetail.errors import StudyError
from dovetail.objective import weighted_sum
from dovetail.record import Trial
from dovetail.study.header import DecisionRecord, StudyHeader

if TYPE_CHECKING:  # importing Optuna takes half a second
    import optuna

__all__ = ["export_to_optuna"]


def export_to_optuna(header: StudyHeader, trials: Iterable[Trial], storage: str, name: str) -> int:
    """Write trials into a new Optuna study.

    Each decision becomes a categorical parameter of its labels, each objective a value (the weighted sum, to be
    maximised, where the search summed them), and every other figure a user attribute.

    Args:
        header: the study's header.
        trials: its trials.
        storage: a SQLAlchemy URL, or a file for SQLite.
        name: what to call the Optuna study.

    Returns:
        The number of trials written.

    Raises:
        StudyError: The storage cannot be written, or has a study of this name.
    """
    import optuna
    import sqlalchemy as sa

    from dovetail.study.urls import storage_url

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        url = storage_url(storage).render_as_string(hide_password=False)
        one: list[Literal["minimize", "maximize"]] = ["maximize"]
        directions = one if header.weighted_sum else [o.direction for o in header.objectives]
        study = optuna.create_study(storage=url, study_name=name, directions=directions)
        study.set_user_attr("dovetail", dict(header.versions))
        frozen = [_frozen(header, trial) for trial in trials]
        study.add_trials(frozen)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise StudyError(
            f"--to-optuna: the storage has an Optuna study called {name!r} already. Delete it or choose another file."
        ) from error
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ModuleNotFoundError) as error:
        raise StudyError(f"--to-optuna: the storage cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        optuna.logging.set_verbosity(verbosity)
    return len(frozen)


def _frozen(header: StudyHeader, trial: Trial) -> optuna.trial.FrozenTrial:
    import optuna

    labels = [_distinct_labels(decision) for decision in header.decisions]
    frozen = optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if trial.is_complete else optuna.trial.TrialState.FAIL,
        values=_values(header, trial) if trial.is_complete else None,
        params={d.name: names[c] for d, names, c in zip(header.decisions, labels, trial.row, strict=True)},
        distributions={
            d.name: optuna.distributions.CategoricalDistribution(names)
            for d, names in zip(header.decisions, labels, strict=True)
        },
        user_attrs={
            **trial.figures,
            "number": trial.number,
            "seed": trial.seed,
            **({"reason": trial.reason} if trial.reason else {}),
        },
    )
    if trial.finished_at:
        frozen.datetime_complete = dt.datetime.fromisoformat(trial.finished_at).replace(tzinfo=None)
        frozen.datetime_start = frozen.datetime_complete - dt.timedelta(seconds=trial.duration_s)
    return frozen


def _values(header: StudyHeader, trial: Trial) -> list[float]:
    values = [trial.value(o.name) for o in header.objectives]
    return [weighted_sum(header.objectives, values)] if header.weighted_sum else values


def _distinct_labels(decision: DecisionRecord) -> tuple[str, ...]:
    """Labels, a repeated one with its position: Optuna tells choices apart by their text."""
    return tuple(
        label if decision.labels.count(label) == 1 else f"{label} #{position}"
        for position, label in enumerate(decision.labels)
    )
