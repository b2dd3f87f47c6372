"""What a search leaves behind for people, written anew from the study whenever it stops."""

from __future__ import annotations

from collections.abc import Sequence

from dovetail.record import Trial
from dovetail.report.csv_file import write_trials_csv
from dovetail.report.plots import plot_front
from dovetail.report.run_files import RunFiles, write_atomically
from dovetail.search.best import Best, find_front
from dovetail.study.header import StudyHeader

__all__ = ["write_results"]


def write_results(files: RunFiles, header: StudyHeader, trials: Sequence[Trial], best: Best | None) -> None:
    """Write `trials.csv`, `pareto/plan-NNN.toml` per trial on the front, `pareto.png` and `best.toml`.

    Plans of an earlier front that are not on it any more are removed.

    Raises:
        StudyError: The folder cannot be written; files are whole, old or new.
    """
    write_trials_csv(files.trials, header, trials)
    front = find_front(trials, header.objectives, header.constraints)
    names = {f"plan-{trial.number:03d}.toml": trial for trial in front}
    for name, trial in names.items():
        with write_atomically(files.front / name) as file:
            file.write(plan_text(trial))
    if files.front.is_dir():
        for old in files.front.glob("plan-*.toml"):
            if old.name not in names:
                old.unlink()
    if best is not None:
        with write_atomically(files.best_plan) as file:
            file.write(plan_text(best.cheapest))
    plot_front(files.plot, header, trials)


def plan_text(trial: Trial) -> str:
    """A plan's TOML, with the trial it comes from and its figures as comments."""
    figures = (f"# {name} = {value!r}" for name, value in trial.figures.items())
    return "\n".join((f"# trial {trial.number}", *figures, "", trial.plan.to_toml()))
