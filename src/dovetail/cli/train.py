"""dovetail train"""

from __future__ import annotations

from pathlib import Path

import click

from dovetail.cli.console import config_argument, json_option, print_json, read, say

__all__ = ["train"]


@click.command()
@config_argument
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for model.safetensors; default: where model.checkpoint says."
)
@click.option("--device", help="auto, cpu, cuda or cuda:1.")
@json_option
def train(config: Path, out: Path | None, device: str | None, as_json: bool) -> None:
    """Train the base model; write its weights and scores."""
    run_config = read(config, device=device)
    if out is None and run_config.model.checkpoint is None and run_config.out is None:
        out = Path("runs") / config.stem / "train"

    from dovetail.api import train as run_training
    from dovetail.evaluation.training import EpochReport

    def show(report: EpochReport) -> None:
        total = run_config.train.epochs
        if report.epoch in (1, total) or report.epoch % max(total // 10, 1) == 0:
            say(
                f"epoch {report.epoch} of {total}: loss {report.train_loss:.4f}, "
                f"validation loss {report.validation_loss:.4f}, validation accuracy {report.accuracy:.2%}"
            )

    trained = run_training(run_config, out=out, on_stage=lambda stage: say(f"{stage} ..."), on_epoch=show)
    if as_json:
        print_json(
            {
                "checkpoint": str(trained.checkpoint),
                "epochs": len(trained.result.epochs),
                "best_epoch": trained.result.best_epoch,
                "scores": {name: score.to_dict()["metrics"] for name, score in trained.scores},
            }
        )
        return
    from dovetail.report import Table, format_measured, print_table

    metrics = [name for name, _ in trained.scores[0][1].metrics]
    rows = tuple((name, *(format_measured(m) for _, m in score.metrics)) for name, score in trained.scores)
    print_table(Table(title="The trained model", columns=("split", *metrics), rows=rows))
    click.echo(f"Weights: {trained.checkpoint}\nScores: {trained.checkpoint.with_suffix('.json')}")
