"""Metrics against hand-computed values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from dovetail.errors import EvaluationError
from dovetail.evaluation.metrics import (
    METRICS,
    MetricSet,
    are_correct,
    are_correct_by_class,
    is_correct,
    target_classes,
)
from dovetail.evaluation.score import Score

CLASSIFICATION = [name for name, metric in METRICS.items() if metric.task == "classification"]


def score(names: list[str], outputs: torch.Tensor, targets: torch.Tensor, sizes: list[int] | None = None) -> Score:
    metrics = MetricSet(names, targets)
    sizes = sizes or [len(targets)]
    pieces = [metrics.measure(o, t) for o, t in zip(outputs.split(sizes), targets.split(sizes), strict=True)]
    result = metrics.score([piece for piece in pieces if not isinstance(piece, str)])
    assert isinstance(result, Score)
    return result


def test_classification_figures_match_their_definitions_by_hand() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [1.0, 0.0]])
    targets = torch.tensor([0, 1, 0, 1])  # right, right, right, wrong
    found = score(["accuracy", "balanced_accuracy", "loss"], outputs, targets)
    assert found.value("accuracy") == 0.75
    assert found.value("balanced_accuracy") == 0.75  # (2/2 + 1/2) / 2
    terms = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(-2.0)), np.log1p(np.exp(1.0))]
    assert found.value("loss") == pytest.approx(np.mean(terms), rel=1e-6)
    assert found.correct_mask is not None
    assert found.correct_mask.tolist() == [True, True, True, False]


def test_classification_figures_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(500, 8, generator=generator)
    targets = torch.randint(0, 8, (500,), generator=generator)
    found = score(CLASSIFICATION, outputs, targets)
    probabilities = outputs.double().softmax(1).numpy()
    assert found.value("balanced_accuracy") == pytest.approx(balanced_accuracy_score(targets, outputs.argmax(1)))
    assert found.value("top5_accuracy") == pytest.approx(top_k_accuracy_score(targets, probabilities, k=5))
    assert found.value("loss") == pytest.approx(log_loss(targets, probabilities), rel=1e-6)


def test_equal_outputs_are_decided_for_the_first_class() -> None:
    outputs = torch.zeros(6, 6)
    found = score(["accuracy", "top5_accuracy"], outputs, torch.arange(6))
    assert found.value("accuracy") == 1 / 6
    assert found.value("top5_accuracy") == 5 / 6


@pytest.mark.parametrize("classes", [1, 2, 5, 20])
def test_answers_of_several_plans_at_once_are_those_of_each_ties_included(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    outputs = torch.randint(0, 3, (300, 4, classes), generator=generator).float()
    outputs[0] = float("inf")
    targets = torch.randint(0, classes, (300,), generator=generator)
    alone = [is_correct(outputs[:, i], targets).numpy() for i in range(4)]
    for together in (are_correct(outputs, targets), are_correct_by_class(outputs, target_classes(targets, classes))):
        assert together is not None
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("classes", [1, 5, 40])
def test_answers_of_several_plans_at_once_are_not_given_where_an_output_is_nan(classes: int) -> None:
    outputs, targets = torch.zeros(30, 4, classes), torch.zeros(30, dtype=torch.long)
    outputs[7, 2, classes // 2] = float("nan")
    assert are_correct(outputs, targets) is None
    assert are_correct_by_class(outputs, target_classes(targets, classes)) is None


def test_regression_figures_match_their_definitions_by_hand() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [3.0], [1.0]])
    found = score(["mse", "mae"], outputs, targets)
    assert found.value("mse") == pytest.approx(10 / 3)
    assert found.value("mae") == pytest.approx(4 / 3)
    assert found.correct is None


def test_outputs_of_one_dimension_are_regression_of_one_value() -> None:
    assert score(["mse"], torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])).value("mse") == 2.0


@pytest.mark.parametrize("names", [CLASSIFICATION, ["mse", "mae"]])
def test_pieces_give_the_score_of_the_whole(names: list[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(101, 7, generator=generator)
    targets = torch.randint(0, 7, (101,), generator=generator) if "accuracy" in names else torch.randn(101, 7)
    assert score(names, outputs, targets) == score(names, outputs, targets, [50, 50, 1])


def test_every_interval_holds_its_value() -> None:
    generator = torch.Generator().manual_seed(2)
    found = score(CLASSIFICATION, torch.randn(60, 9, generator=generator), torch.arange(60) % 9)
    assert all(figure.low <= figure.value <= figure.high and figure.samples == 60 for _, figure in found.metrics)


def test_nan_outputs_are_a_reason_not_a_score() -> None:
    outputs = torch.zeros(4, 2)
    outputs[1, 0] = outputs[3, 1] = float("nan")
    reason = MetricSet(["accuracy"], torch.zeros(4, dtype=torch.long)).measure(
        outputs, torch.zeros(4, dtype=torch.long)
    )
    assert reason == "outputs are NaN for 2 of 4 samples."


def test_infinities_that_cancel_are_not_taken_for_nan() -> None:
    targets = torch.tensor([0, 1])
    outputs = torch.tensor([[float("inf"), 0.0], [float("-inf"), 0.0]])
    assert score(["accuracy"], outputs, targets).value("accuracy") == 1.0
    metrics = MetricSet(["loss"], targets)
    piece = metrics.measure(outputs, targets)
    assert not isinstance(piece, str)
    assert metrics.score([piece]) == "loss is NaN: the outputs hold infinities."


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["acuracy"], "Did you mean 'accuracy'"),
        ([], "at least one name"),
        (["loss", "loss"], "each once"),
        (["accuracy", "mse"], "one task"),
    ],
)
def test_metrics_that_do_not_go_together_are_refused(names: list[str], match: str) -> None:
    with pytest.raises(EvaluationError, match=match):
        MetricSet(names, torch.zeros(3, dtype=torch.long))


def test_outputs_and_targets_of_a_wrong_shape_are_refused() -> None:
    targets = torch.zeros(3, dtype=torch.long)
    with pytest.raises(EvaluationError, match="one row per sample"):
        MetricSet(["accuracy"], targets).measure(torch.zeros(2, 2), targets)
    with pytest.raises(EvaluationError, match=r"\[samples, classes\]"):
        MetricSet(["accuracy"], targets).measure(torch.zeros(3, 2, 2), targets)
    with pytest.raises(EvaluationError, match="one for each of 4 classes in the data, got 3"):
        MetricSet(["accuracy"], targets + 3).measure(torch.zeros(3, 3), targets + 3)
    with pytest.raises(EvaluationError, match="regression needs"):
        MetricSet(["mse"], torch.zeros(3, 2)).measure(torch.zeros(3, 3), torch.zeros(3, 2))
    with pytest.raises(EvaluationError, match="one class number per sample"):
        MetricSet(["accuracy"], torch.zeros(3, 2))
