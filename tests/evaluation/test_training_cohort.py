"""Training side by side gives what training one by one gives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation.cohort import Training, train_cohort
from dovetail.evaluation.crew import can_fork
from dovetail.evaluation.grouping import kept_bytes, share_out, size_classes
from dovetail.evaluation.side_by_side import SideBySideTrainer
from dovetail.evaluation.stacked import CannotStackError
from dovetail.evaluation.training import TrainResult, train_model
from dovetail.settings import TrainConfig

CONFIG = TrainConfig(epochs=4, learning_rate=1e-2, weight_decay=1e-2, schedule="cosine")
BATCH = 32
WAYS = [(False, 1), (False, 2), (True, 1), (True, 2)]
"""Of training a cohort: side by side or not, in this process or in two others."""

needs_fork = pytest.mark.skipif(not can_fork(torch.device("cpu")), reason="no worker processes here")


def make_split(samples: int = 130, seed: int = 0, shape: tuple[int, ...] = (4,)) -> Split:
    x = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))
    flat = x.flatten(1)
    return Split((x,), (flat[:, 0] * flat[:, 1] > 0).long())


def make_net(width: int, dropout: float = 0.0, last: nn.Module | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        # no bias before the batch norm: its gradient is rounding noise, which Adam would blow up to full steps
        layers = [nn.Linear(4, width, bias=False), nn.BatchNorm1d(width), nn.Sigmoid(), nn.Dropout(dropout)]
        return nn.Sequential(*layers, last or nn.Identity(), nn.Linear(width, 2))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn, self.head = nn.BatchNorm2d(width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((torch.relu(self.bn(self.conv(x))) + x).mean((2, 3)))


def training(config: TrainConfig = CONFIG, shape: tuple[int, ...] = (4,)) -> Training:
    return Training(train=make_split(shape=shape), validation=make_split(50, 1, shape), config=config, batch_size=BATCH)


def one_by_one(models: list[nn.Module], shared: Training) -> list[TrainResult]:
    return [
        train_model(model, shared.train, shared.validation, shared.config, batch_size=BATCH, seed=seed)
        for seed, model in enumerate(models)
    ]


def cohort(
    models: list[nn.Module],
    shared: Training,
    *,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> dict[int, TrainResult | Exception]:
    """What became of each model, by its number."""
    seeds = range(len(models)) if seeds is None else seeds
    found: dict[int, TrainResult | Exception] = {}
    for some in train_cohort(models, shared, lambda _, result: result, seeds=seeds, workers=workers, stop=stop):
        found |= some
    return found


def side_by_side(
    models: list[nn.Module], shared: Training, classes: list[list[int]] | None = None
) -> SideBySideTrainer:
    return SideBySideTrainer(
        models,
        shared.train,
        shared.validation,
        shared.config,
        batch_size=BATCH,
        seeds=list(range(len(models))),
        classes=classes,
    )


def stack(models: list[nn.Module], shared: Training) -> SideBySideTrainer:
    return side_by_side(models, shared, [list(range(len(models)))])


def assert_close(one: TrainResult, other: TrainResult) -> None:
    assert [r.epoch for r in one.epochs] == [r.epoch for r in other.epochs]
    assert one.best_epoch == other.best_epoch
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert (a.train_loss, a.validation_loss) == pytest.approx((b.train_loss, b.validation_loss), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_a_stack_of_different_widths_trains_as_each_model_alone(optimizer: str) -> None:
    shared = training(TrainConfig(epochs=3, learning_rate=1e-2, optimizer=optimizer))  # type: ignore[arg-type]
    models = [make_net(width) for width in (8, 3, 12)]
    trainer = stack(models, shared)
    while not trainer.is_finished:
        trainer.run_epoch()
    for one, alone in zip(trainer.results(), one_by_one(models, shared), strict=True):
        assert isinstance(one, TrainResult)
        assert_close(one, alone)


def test_a_stack_of_convolutions_with_a_residual_trains_as_each_model_alone() -> None:
    shared = training(TrainConfig(epochs=2, learning_rate=1e-2), (1, 5, 5))
    models: list[nn.Module] = [Residual(width) for width in (4, 6)]
    trainer = stack(models, shared)
    while not trainer.is_finished:
        trainer.run_epoch()
    for one, alone in zip(trainer.results(), one_by_one(models, shared), strict=True):
        assert isinstance(one, TrainResult)
        assert_close(one, alone)


def test_models_stop_by_patience_each_at_its_own_epoch() -> None:
    shared = training(TrainConfig(epochs=40, learning_rate=0.1, patience=2))
    models = [make_net(width) for width in (8, 3, 12)]
    trainer = stack(models, shared)
    while not trainer.is_finished:
        trainer.run_epoch()
    alone = one_by_one(models, shared)
    for one, other in zip(trainer.results(), alone, strict=True):
        assert isinstance(one, TrainResult)
        assert one.best_epoch <= len(one.epochs)
        kept = min(one.epochs, key=lambda r: r.validation_loss).epoch
        assert (one.best_epoch, len(one.epochs)) == (kept, min(kept + 2, 40))
        assert one.epochs[0].validation_loss == pytest.approx(other.epochs[0].validation_loss, rel=1e-4)


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_a_model_that_diverges_fails_alone(stacked: bool, workers: int) -> None:
    models = [make_net(4), make_net(5)]
    with torch.no_grad():
        next(models[0].parameters()).fill_(float("nan"))
    found = cohort(models, training(TrainConfig(epochs=2, stacked=stacked)), workers=workers)
    assert isinstance(found[0], EvaluationError)
    assert "the loss became nan in epoch 1" in str(found[0])
    assert isinstance(found[1], TrainResult)


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([make_net(8, last=nn.LayerNorm(8)), make_net(6, last=nn.LayerNorm(6))], "."),
        ([make_net(8, last=nn.Softmax(1)), make_net(6, last=nn.Softmax(1))], "padding changes"),
        ([make_net(8, dropout=0.5), make_net(8, dropout=0.5)], "random"),
        ([make_net(8), nn.Sequential(nn.Linear(4, 2))], "different names"),
    ],
    ids=["layer norm", "softmax", "dropout", "another architecture"],
)
def test_models_whose_code_forbids_it_are_not_stacked(models: list[nn.Module], reason: str) -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(CannotStackError, match=reason):
        stack(models, training())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_a_cohort_is_trained_as_one_by_one(stacked: bool, workers: int, dropout: float) -> None:
    shared = training(TrainConfig(epochs=2, learning_rate=1e-2, stacked=stacked))
    models = [make_net(width, dropout) for width in (8, 3, 12, 8, 5, 7)]  # enough for a stack
    state, cores = torch.random.get_rng_state(), torch.get_num_threads()
    found = cohort(models, shared, workers=workers)
    assert len(found) == len(models)
    for number, alone in enumerate(one_by_one(models, shared)):
        one = found[number]
        assert isinstance(one, TrainResult)
        assert_close(one, alone)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == cores


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_the_models_of_a_cohort_are_not_changed(stacked: bool, workers: int) -> None:
    models = [make_net(8), make_net(6)]
    before = [[t.clone() for t in m.state_dict().values()] for m in models]
    cohort(models, training(TrainConfig(epochs=1, stacked=stacked)), workers=workers)
    for model, tensors in zip(models, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), tensors, strict=True))
        assert model.training


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_halving_keeps_the_better_half_at_each_rung(stacked: bool, workers: int) -> None:
    shared = training(TrainConfig(epochs=5, learning_rate=1e-2, halving=2, stacked=stacked))
    models = [make_net(width) for width in (3, 4, 5, 6, 7, 8)]
    found = cohort(models, shared, workers=workers)
    results = [r for r in found.values() if isinstance(r, TrainResult)]
    assert sorted(len(r.epochs) for r in results) == [1, 1, 1, 2, 4, 5]  # 6 at epoch 1, 3 at 2, 2 at 4, 1 to the end
    first = sorted(results, key=lambda r: r.epochs[0].validation_loss)
    assert {len(r.epochs) for r in first[:3]} == {2, 4, 5}
    for number, alone in enumerate(one_by_one(models, shared)):  # as far as each went, it went as it does alone
        one = found[number]
        assert isinstance(one, TrainResult)
        for a, b in zip(one.epochs, alone.epochs, strict=False):
            assert a.validation_loss == pytest.approx(b.validation_loss, rel=1e-4)


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_a_candidate_that_diverges_does_not_survive_halving(stacked: bool, workers: int) -> None:
    models = [make_net(width) for width in (3, 4, 5)]
    with torch.no_grad():
        next(models[1].parameters()).fill_(float("nan"))
    found = cohort(models, training(TrainConfig(epochs=2, halving=2, stacked=stacked)), workers=workers)
    assert isinstance(found[1], EvaluationError)
    assert sorted(len(r.epochs) for r in found.values() if isinstance(r, TrainResult)) == [1, 2]


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_each_candidate_of_a_cohort_stops_by_its_own_patience(stacked: bool, workers: int) -> None:
    shared = training(TrainConfig(epochs=40, learning_rate=0.1, patience=2, stacked=stacked))
    found = cohort([make_net(width) for width in (8, 3, 12)], shared, workers=workers)
    for number in range(3):
        one = found[number]
        assert isinstance(one, TrainResult)
        kept = min(one.epochs, key=lambda r: r.validation_loss).epoch
        assert (one.best_epoch, len(one.epochs)) == (kept, min(kept + 2, 40))


@pytest.mark.parametrize("stacked", [False, True])
def test_the_order_of_candidates_does_not_matter(stacked: bool) -> None:
    shared = training(TrainConfig(epochs=2, learning_rate=1e-2, stacked=stacked))
    models = [make_net(width) for width in (8, 3, 12, 5)]
    forward = cohort(models, shared, workers=2)
    backward = cohort(models[::-1], shared, seeds=[3, 2, 1, 0], workers=2)
    for number in range(4):
        one, other = forward[number], backward[3 - number]
        assert isinstance(one, TrainResult)
        assert isinstance(other, TrainResult)
        assert_close(one, other)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_number_of_workers_changes_no_bit_of_small_models(stacked: bool) -> None:
    shared = training(TrainConfig(epochs=2, learning_rate=1e-2, stacked=stacked))
    models = [make_net(width) for width in (8, 3, 12, 5)]
    found = [cohort(models, shared, workers=workers) for workers in (1, 2, 3)]
    for number in range(4):
        each = [results[number] for results in found]
        assert all(isinstance(one, TrainResult) for one in each)
        assert len({one.epochs for one in each if isinstance(one, TrainResult)}) == 1


def test_an_interrupt_ends_all_workers() -> None:
    def interrupt() -> bool:
        if not multiprocessing.active_children():
            return False
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cohort([make_net(8), make_net(6)], training(TrainConfig(epochs=10_000)), workers=2, stop=interrupt)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("stacked", "workers"), WAYS)
def test_a_stop_reports_nothing_that_is_not_finished(stacked: bool, workers: int) -> None:
    shared = training(TrainConfig(epochs=10_000, stacked=stacked))
    asked: list[int] = []
    found = cohort(
        [make_net(8), make_net(6)], shared, workers=workers, stop=lambda: (asked.append(1), len(asked))[1] > 3
    )
    assert found == {}
    assert not multiprocessing.active_children()


class EndsItsProcess(nn.Module):
    """Kills the worker that it is trained in, as the system does where memory runs out; does no harm to this one."""

    def __init__(self, at_epoch: int = 1, bias: float = 0.0) -> None:
        super().__init__()
        self.linear, self.home, self.at_epoch = nn.Linear(4, 2), os.getpid(), at_epoch
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor([bias, -bias]))
        self.epochs, self.was_training = 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.epochs += self.training and not self.was_training
        self.was_training = self.training
        if os.getpid() != self.home and self.epochs >= self.at_epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(x)  # type: ignore[no-any-return]


def losses(found: dict[int, TrainResult | Exception]) -> dict[int, list[float]]:
    """Of the candidates that did not fail, after each epoch that they were trained for."""
    trained = ((number, result) for number, result in found.items() if isinstance(result, TrainResult))
    return {number: [report.validation_loss for report in result.epochs] for number, result in sorted(trained)}


@needs_fork
@pytest.mark.parametrize("halving", [None, 2])
def test_a_killed_worker_takes_along_what_it_was_at_and_the_others_go_on(halving: int | None) -> None:
    shared = training(TrainConfig(epochs=4, learning_rate=1e-2, halving=halving))
    models = [make_net(8), EndsItsProcess(), make_net(6), make_net(5)]
    found = cohort(models, shared, workers=2)
    assert isinstance(found[1], EvaluationError)
    assert str(found[1]).startswith("training: its worker process was killed by SIGKILL")
    others = losses(cohort([models[0], *models[2:]], shared, seeds=[0, 2, 3]))
    assert list(losses(found).items()) == list(zip((0, 2, 3), others.values(), strict=True))


@needs_fork
def test_what_a_dead_worker_had_put_aside_is_trained_anew_as_far_as_it_had_come() -> None:
    shared = training(TrainConfig(epochs=4, learning_rate=1e-2, halving=2))
    models = [make_net(8), make_net(6), EndsItsProcess(at_epoch=2, bias=0.0), EndsItsProcess(at_epoch=2, bias=9.0)]
    found, undisturbed = cohort(models, shared, workers=2), losses(cohort(models, shared))
    assert {number: len(epochs) for number, epochs in undisturbed.items()} == {0: 4, 1: 1, 2: 2, 3: 1}
    assert isinstance(found[2], EvaluationError)  # the only one that came to a second epoch elsewhere
    assert losses(found) == {number: undisturbed[number] for number in (0, 1, 3)}


class RaisesKeyError(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise KeyError("a bug")
        return self.linear(x)  # type: ignore[no-any-return]


@needs_fork
def test_a_bug_in_a_worker_raises_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="in a worker process:(.|\n)*KeyError: 'a bug'"):
        cohort([RaisesKeyError(), RaisesKeyError()], training(), workers=2)
    assert not multiprocessing.active_children()


def test_where_processes_cannot_fork_one_process_trains_all_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    models = [make_net(8), make_net(6)]
    found = cohort(models, training(), workers=2)
    for number, alone in enumerate(one_by_one(models, training())):
        one = found[number]
        assert isinstance(one, TrainResult)
        assert_close(one, alone)
    assert "training in one process" in caplog.text


@needs_fork
def test_results_come_as_they_are_ready_and_closing_ends_all_workers() -> None:
    shared = training(TrainConfig(epochs=2))
    models = [make_net(width) for width in (8, 3, 12, 5)]
    found = train_cohort(models, shared, lambda _, result: result, seeds=range(4), workers=2)
    assert len(next(found)) == 1
    assert multiprocessing.active_children()
    found.close()
    assert not multiprocessing.active_children()


def test_small_models_share_a_class_and_large_ones_do_not() -> None:
    def sizes(width: int) -> list[list[int]]:
        return [[width, 16], [width], [5, width], [5]]

    alike = size_classes([sizes(width) for width in (8, 16, 12, 9, 10, 11)], 32)
    assert alike == [[1, 2, 5, 4, 3, 0]]
    assert size_classes([sizes(8), sizes(9)], 32) == [[1], [0]]  # two do not pay for what a stack costs
    assert size_classes([sizes(8), sizes(100_000)], 512) == [[1], [0]]
    assert size_classes([sizes(100_000), sizes(90_000)], 512) == [[0], [1]]
    found = size_classes([sizes(8)] * 40, 32)
    assert sorted(i for members in found for i in members) == list(range(40))
    assert max(map(len, found)) == 16
    assert size_classes([], 32) == []


def test_shares_are_of_like_cost_and_within_their_room() -> None:
    assert share_out([5, 4, 3, 2], [1, 1, 1, 1], 10, 2) == [[0, 3], [1, 2]]  # 7 each
    assert share_out([5, 4, 3, 2], [6, 6, 6, 6], 10, 2) == [[0], [1], [2], [3]]  # no room for two
    assert share_out([1], [100], 10, 4) == [[0]]  # one alone is let in whatever it takes
    assert share_out([], [], 10, 4) == []


def test_what_a_model_keeps_of_a_sample_is_what_its_backward_pass_reads() -> None:
    split = make_split()
    net = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
    assert kept_bytes(net, split) == (4 + 8) * 4  # the first layer's input, and the sigmoid's result; float32
    assert kept_bytes(nn.Linear(5, 2), split) == float("inf")  # it does not run on four features
