"""Metrics of task quality: each the mean of one value per sample, so that a split can be scored in pieces of any size.

A metric names its *statistic*, one value per sample computed from (outputs, targets) in one pass, and how those values
aggregate into a figure with its 95 % interval. Metrics that need the same statistic share it: accuracy and balanced
accuracy look at the outputs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import EvaluationError, unknown_name
from dovetail.evaluation.bootstrap import group_sums
from dovetail.evaluation.score import Z_95, Measured, Score, measure_mean, measure_share

__all__ = ["METRICS", "Metric", "MetricSet", "Values", "find_metrics"]

_FEW_CLASSES = 16

Values = dict[str, NDArray[Any]]
"""Statistic name -> one value per sample."""


def is_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest of the outputs [N, C] is the target's class; among equal outputs the first class counts as
    the largest.
    """
    return outputs.argmax(1) == targets


def are_correct(outputs: Tensor, targets: Tensor) -> NDArray[np.bool_] | None:
    """`is_correct` for several plans at once.

    Args:
        outputs: [N, plans, C].
        targets: [N].

    Returns:
        [plans, N]; None where an output is NaN, or may be.
    """
    if math.isnan(float(outputs.sum())):
        return None
    correct: NDArray[np.bool_] = (outputs.argmax(2) == targets[:, None]).t().cpu().numpy()
    return correct


def are_correct_by_class(outputs: Tensor, classes: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """`are_correct` on a processor, class by class: NumPy compares floats several times faster there than PyTorch.

    Args:
        outputs: [N, plans, C]; fastest as a view of memory in the order [C, plans, N].
        classes: [C, N], whether a class is the sample's target (`target_classes`).

    Returns:
        As `are_correct`.
    """
    by_class: NDArray[Any] = outputs.permute(2, 1, 0).contiguous().numpy()
    largest = by_class.max(0)
    if np.isnan(largest.sum()):  # NaN is larger than any number here; opposite infinities may add up to it
        return None
    if len(by_class) > _FEW_CLASSES:
        is_best: NDArray[np.bool_] = by_class.argmax(0) == classes.argmax(0)
        return is_best
    is_largest = by_class == largest
    correct: NDArray[np.bool_] = is_largest[0] & classes[0]
    seen = is_largest[0]
    for its, target in zip(is_largest[1:], classes[1:], strict=True):
        correct |= its & target & ~seen  # a class before the target's must not be as large
        seen |= its
    return correct


def target_classes(targets: Tensor, num_classes: int) -> NDArray[np.bool_]:
    """Whether each class is a sample's target: [C, N]."""
    numbers: NDArray[np.int64] = targets.cpu().numpy()
    return np.equal(np.arange(num_classes)[:, None], numbers)


def is_in_top5(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where fewer than 5 classes rank before the target's; among equal outputs the lower class ranks first."""
    own = outputs.gather(1, targets[:, None])
    classes = torch.arange(outputs.shape[1], device=outputs.device)
    before = (outputs > own) | ((outputs == own) & (classes < targets[:, None]))
    return before.sum(1) < 5


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(outputs)[target] of each sample, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the outputs of one sample of (output - target)^2."""
    return (outputs - targets.reshape(outputs.shape)).square().reshape(len(outputs), -1).mean(1)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the outputs of one sample of |output - target|."""
    return (outputs - targets.reshape(outputs.shape)).abs().reshape(len(outputs), -1).mean(1)


def share(values: NDArray[Any], targets: NDArray[Any]) -> Measured:
    """Share of samples whose value is 1, with Wilson's interval."""
    return measure_share(int(np.count_nonzero(values)), values.size)


def mean(values: NDArray[Any], targets: NDArray[Any]) -> Measured:
    """Mean over samples, with its bootstrap interval."""
    return measure_mean(values)


def mean_of_class_shares(values: NDArray[Any], targets: NDArray[Any]) -> Measured:
    """Mean over the classes present in the targets of the share of their samples whose value is 1.

    Interval: normal, with variance sum_k q_k (1 - q_k) / n_k over squared number of classes, q_k = (right_k + 2) /
    (n_k + 4) (Agresti and Coull's shrunk share, so that classes without a single error still count as uncertain), cut
    to [0, 1].
    """
    totals = np.bincount(targets)
    rights = np.bincount(targets[values.astype(np.bool_)], minlength=totals.size)[totals > 0]
    totals = totals[totals > 0]
    value = float((rights / totals).mean())
    shrunk = (rights + 2) / (totals + 4)
    half = Z_95 * math.sqrt(float((shrunk * (1 - shrunk) / totals).sum())) / totals.size
    return Measured(value, values.size, max(0.0, value - half), min(1.0, value + half))


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of task quality.

    Args:
        name: its name in configurations and records.
        direction: whether more or less of it is better.
        task: "classification": outputs [N, C], targets [N] of classes; "regression": targets shaped like the outputs.
        formula: its definition in one line.
        statistic: (outputs, targets) -> one value per sample.
        aggregate: (values, targets) -> the figure over all samples.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    task: Literal["classification", "regression"]
    formula: str
    statistic: Callable[[Tensor, Tensor], Tensor]
    aggregate: Callable[[NDArray[Any], NDArray[Any]], Measured]

    @property
    def unit(self) -> str:
        """Of its value: "share" (0 to 1), or "" for a bare number."""
        return "share" if self.aggregate in (share, mean_of_class_shares) else ""


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "maximize", "classification", "right samples / samples", is_correct, share),
        Metric(
            "balanced_accuracy",
            "maximize",
            "classification",
            "mean over classes of right samples of the class / samples of the class",
            is_correct,
            mean_of_class_shares,
        ),
        Metric(
            "top5_accuracy",
            "maximize",
            "classification",
            "samples whose class is among the 5 largest outputs / samples",
            is_in_top5,
            share,
        ),
        Metric(
            "loss",
            "minimize",
            "classification",
            "mean over samples of -log softmax(outputs)[target]",
            cross_entropy,
            mean,
        ),
        Metric("mse", "minimize", "regression", "mean of (output - target)^2", squared_error, mean),
        Metric("mae", "minimize", "regression", "mean of |output - target|", absolute_error, mean),
    )
}
"""Name -> metric of task quality."""


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of these names.

    Raises:
        EvaluationError: A name is unknown or twice there, none is given, or two metrics are of different tasks.
    """
    for name in names:
        if name not in METRICS:
            raise EvaluationError(f"metrics: {unknown_name('metric', name, METRICS)}")
    if not names or len(set(names)) != len(names):
        raise EvaluationError(f"metrics: at least one name, each once, got {list(names)}.")
    metrics = tuple(METRICS[name] for name in names)
    if len({metric.task for metric in metrics}) > 1:
        tasks = ", ".join(f"{metric.name} ({metric.task})" for metric in metrics)
        raise EvaluationError(f"metrics: all must be of one task, got {tasks}.")
    return metrics


class MetricSet:
    """Scores outputs, in one piece or several, by a fixed choice of metrics.

    Args:
        names: of `METRICS`.
        targets: of the whole split, on any device.

    Raises:
        EvaluationError: The names do not go together (`find_metrics`).
    """

    def __init__(self, names: Sequence[str], targets: Tensor) -> None:
        self.metrics = find_metrics(names)
        self.is_classification = self.metrics[0].task == "classification"
        if self.is_classification and (targets.ndim != 1 or targets.is_floating_point()):
            raise EvaluationError(
                "targets: classification needs one class number per sample, "
                f"got {targets.dtype} of shape {list(targets.shape)}."
            )
        self._targets = targets.detach().cpu().numpy()
        self._last_classes: tuple[Tensor, NDArray[np.bool_]] | None = None  # of the targets last measured
        self._num_classes = int(self._targets.max(initial=-1)) + 1 if self.is_classification else 0
        self._statistics = {metric.statistic.__name__: metric.statistic for metric in self.metrics}
        if self.is_classification:
            self._statistics[is_correct.__name__] = is_correct

    def measure(self, outputs: Tensor, targets: Tensor) -> Values | str:
        """One value per sample and statistic, for one piece of the split; or the reason why the outputs cannot be
        scored.

        Args:
            outputs: what the model gave for the piece, [N, C] for classification.
            targets: the piece's targets on the same device.

        Raises:
            EvaluationError: The outputs do not have the shape that the task needs; no plan can change that.
        """
        self._check(outputs, targets)
        outputs = _widened(outputs)
        total = float(outputs.sum())  # NaN if any output is NaN (or if infinities cancel: then look closely)
        if math.isnan(total) and (num_nan := int(outputs.isnan().reshape(len(outputs), -1).any(1).sum())):
            return f"outputs are NaN for {num_nan} of {outputs.shape[0]} samples."
        return {name: statistic(outputs, targets).cpu().numpy() for name, statistic in self._statistics.items()}

    def measure_stack(self, outputs: Tensor, targets: Tensor) -> list[Values | str]:
        """`measure` for several plans at once.

        Args:
            outputs: of all of them, [N, plans, C].
            targets: [N].
        """
        num_plans, outputs = outputs.shape[1], _widened(outputs)
        if list(self._statistics) == [is_correct.__name__]:
            self._check(outputs[:, 0], targets)
            correct = (
                are_correct_by_class(outputs, self._classes(targets, outputs.shape[2]))
                if outputs.device.type == "cpu"
                else are_correct(outputs, targets)
            )
            if correct is not None:
                return [{is_correct.__name__: row} for row in correct]
        return [self.measure(outputs[:, i].contiguous(), targets) for i in range(num_plans)]

    def _classes(self, targets: Tensor, num_classes: int) -> NDArray[np.bool_]:
        last = self._last_classes
        if last is None or last[0] is not targets or len(last[1]) != num_classes:
            last = self._last_classes = (targets, target_classes(targets, num_classes))
        return last[1]

    def score(self, pieces: Sequence[Values]) -> Score | str:
        """The score over pieces in the split's order, which may cover only its first samples; or the reason why there
        is none.
        """
        values = {
            name: pieces[0][name] if len(pieces) == 1 else np.concatenate([piece[name] for piece in pieces])
            for name in self._statistics
        }
        targets = self._targets[: next(iter(values.values())).size]
        figures = []
        for metric in self.metrics:
            figure = metric.aggregate(values[metric.statistic.__name__], targets)
            if math.isnan(figure.value):
                return f"{metric.name} is NaN: the outputs hold infinities."
            figures.append((metric.name, figure))
        correct = np.packbits(values[is_correct.__name__]).tobytes() if self.is_classification else None
        sums = tuple(
            (metric.name, group_sums(values[metric.statistic.__name__]).astype("<f4").tobytes())
            for metric in self.metrics
            if metric.aggregate is mean
        )
        return Score(tuple(figures), correct, sums)

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.ndim < 1 or outputs.shape[0] != targets.shape[0]:
            raise EvaluationError(
                f"outputs: one row per sample ({targets.shape[0]}) is needed, got shape {list(outputs.shape)}."
            )
        if self.is_classification and outputs.ndim != 2:
            raise EvaluationError(f"outputs: classification needs shape [samples, classes], got {list(outputs.shape)}.")
        if self.is_classification and outputs.shape[1] < self._num_classes:
            raise EvaluationError(
                f"outputs: the model must give one for each of {self._num_classes} classes in the data, got "
                f"{outputs.shape[1]}."
            )
        if not self.is_classification and outputs.numel() != targets.numel():
            raise EvaluationError(
                f"outputs: regression needs the targets' shape {list(targets.shape)}, got {list(outputs.shape)}."
            )


def _widened(outputs: Tensor) -> Tensor:
    """Half-precision outputs as float32, exactly: metrics are computed in no less."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
