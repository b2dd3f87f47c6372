"""The results of a search as tables for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dovetail.objective import Objective, weighted_sum
from dovetail.record import Trial
from dovetail.report.figures import format_figure, format_measured
from dovetail.report.tables import Table
from dovetail.search.best import Best, find_best, find_front, is_within, is_worse
from dovetail.study.header import StudyHeader

__all__ = [
    "best_table",
    "describe_best",
    "describe_none",
    "describe_ranking",
    "front_table",
    "rank_trials",
    "results_dict",
    "scaled_metrics",
    "trial_dict",
]

COLUMNS = ("number", "software_metrics", "hardware_metrics", "scaled_metrics")


def software_metrics(trial: Trial) -> dict[str, float]:
    """Figures of task quality."""
    return {name: measured.value for name, measured in trial.score.metrics} if trial.score else {}


def hardware_metrics(trial: Trial) -> dict[str, float]:
    """Figures of cost, exact and measured."""
    return {**dict(trial.costs), **dict(trial.measurements)}


def scaled_metrics(trial: Trial, objectives: Sequence[Objective]) -> dict[str, float]:
    """scale x figure of each objective."""
    return {o.name: o.scale * trial.value(o.name) for o in objectives}


def rank_trials(header: StudyHeader, trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best trials, best first: by the weighted sum, or by the objectives in their order; feasible ones alone."""
    kept = [trial for trial in trials if is_within(trial, header.constraints)]

    def key(trial: Trial) -> tuple[float, ...]:
        if header.weighted_sum:
            return -_sum(trial, header), trial.number
        return (*(-o.sign * trial.value(o.name) for o in header.objectives), trial.number)

    return sorted(kept, key=key)[:count]


def best_table(header: StudyHeader, trials: Sequence[Trial], count: int = 10) -> Table:
    """The best trials under the heads `number | software_metrics | hardware_metrics | scaled_metrics`."""
    rank = "by their weighted sum" if header.weighted_sum else f"by {', then '.join(o.name for o in header.objectives)}"
    ranked = rank_trials(header, trials, count)
    return _table(f"Best {len(ranked)} of {len(trials):,} trials, {rank}", header, ranked)


def describe_ranking(header: StudyHeader, trials: Sequence[Trial], count: int = 10) -> str | None:
    """How many of the best table's trials the samples cannot tell from its first; None where no figure is sampled."""
    ranked = rank_trials(header, trials, count)
    quality = next((o for o in header.objectives if ranked and ranked[0].measured(o.name) is not None), None)
    if quality is None or len(ranked) < 2:
        return None
    alike = sum(not is_worse(trial, ranked[0], quality) for trial in ranked[1:])
    if alike == 0:
        return f"Every other of these {len(ranked)} has a significantly worse {quality.name} than the first."
    others = "the others" if alike == len(ranked) - 1 else f"{alike} of the others"
    return f"On these samples {others} cannot be told from the first by {quality.name}: their order is no ranking."


def front_table(header: StudyHeader, trials: Sequence[Trial]) -> Table:
    """The Pareto front under the same heads."""
    front = find_front(trials, header.objectives, header.constraints)
    return _table(f"Pareto front: {len(front)} of {len(trials):,} trials", header, front)


def describe_none(header: StudyHeader, trials: Sequence[Trial]) -> str:
    """Why there is no best trial: how near the trials came to each constraint that none of them keeps."""
    complete = [trial for trial in trials if trial.is_complete]
    if not complete:
        return "Best: none. No trial is complete."
    unkept = []
    for constraint in header.constraints:
        pick = min if constraint.op == "<=" else max
        nearest = pick(complete, key=lambda trial: trial.value(constraint.metric))
        if not constraint.holds(value := nearest.value(constraint.metric)):
            unkept.append(f"{constraint}: the nearest is {format_figure(value)} (trial {nearest.number})")
    return "Best: none. " + ("; ".join(unkept) if unkept else "Each constraint is kept by a trial, all by none") + "."


def describe_best(best: Best) -> str:
    """The answer of a search in words; a difference that the samples cannot support is not told as a ranking."""
    top = f"Best: trial {best.top.number} ({_figures(best.top, best.quality)})"
    if best.cheapest.number == best.top.number:
        return f"{top}; {best.test}."
    cheapest = f"trial {best.cheapest.number} ({_figures(best.cheapest, best.quality)})"
    return f"{top}.\nCheapest that is not significantly worse: {cheapest}; {best.test}."


def trial_dict(trial: Trial, objectives: Sequence[Objective]) -> dict[str, Any]:
    """One trial for machines: the table's columns, and the plan, samples and intervals beside them."""
    measured = {name: m.to_dict() for name, m in trial.score.metrics} if trial.score else {}
    return {
        "number": trial.number,
        "software_metrics": software_metrics(trial),
        "hardware_metrics": hardware_metrics(trial),
        "scaled_metrics": scaled_metrics(trial, objectives) if trial.is_complete else {},
        "measured": measured,
        "choices": dict(trial.choices),
        "plan": trial.plan.to_dict(),
        "state": trial.state.value,
        "reason": trial.reason,
        "seed": trial.seed,
        "duration_s": trial.duration_s,
        "finished_at": trial.finished_at,
    }


def results_dict(header: StudyHeader, trials: Sequence[Trial], count: int = 10) -> dict[str, Any]:
    """The results of a search for machines."""
    best = find_best(trials, header.objectives, header.constraints, summed=header.weighted_sum)
    return {
        "trials": len(trials),
        "failed": sum(not trial.is_complete for trial in trials),
        "space": header.size,
        "objectives": [{"name": o.name, "direction": o.direction, "scale": o.scale} for o in header.objectives],
        "constraints": [str(constraint) for constraint in header.constraints],
        "unpriced": {cost: list(operations) for cost, operations in header.unpriced},
        "best": None
        if best is None
        else {
            "top": trial_dict(best.top, header.objectives),
            "cheapest_not_worse": trial_dict(best.cheapest, header.objectives),
            "p_value": best.p_value,
            "test": best.test,
        },
        "ranking": [trial_dict(trial, header.objectives) for trial in rank_trials(header, trials, count)],
        "front": [
            trial_dict(trial, header.objectives) for trial in find_front(trials, header.objectives, header.constraints)
        ],
    }


def _table(title: str, header: StudyHeader, trials: Sequence[Trial]) -> Table:
    return Table(title=title, columns=COLUMNS, rows=tuple(_row(header, trial) for trial in trials), numeric=("number",))


def _row(header: StudyHeader, trial: Trial) -> tuple[str, ...]:
    units = dict(header.units)
    unpriced = {cost for cost, operations in header.unpriced if operations}
    software = [f"{name} {format_measured(m)}" for name, m in trial.score.metrics] if trial.score else []
    hardware = [
        " ".join(
            filter(None, (name, format_figure(value), units.get(name), "(incomplete)" if name in unpriced else None))
        )
        for name, value in hardware_metrics(trial).items()
    ]
    scaled = [f"{name} {format_figure(value)}" for name, value in scaled_metrics(trial, header.objectives).items()]
    if header.weighted_sum:
        scaled.append(f"sum {format_figure(_sum(trial, header))}")
    return str(trial.number), "\n".join(software), "\n".join(hardware), "\n".join(scaled)


def _sum(trial: Trial, header: StudyHeader) -> float:
    return weighted_sum(header.objectives, [trial.value(o.name) for o in header.objectives])


def _figures(trial: Trial, quality: str | None) -> str:
    parts = []
    measured = trial.measured(quality) if quality else None
    if measured:
        parts.append(f"{quality} {format_measured(measured)}")
    parts += [f"{name} {format_figure(value)}" for name, value in hardware_metrics(trial).items()]
    return ", ".join(parts)
