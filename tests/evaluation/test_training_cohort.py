"""Training side by side gives what training one by one gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation.cohort import Training, size_classes, train_cohort
from dovetail.evaluation.stacked import CannotStackError, StackTrainer
from dovetail.evaluation.training import TrainResult, train_model
from dovetail.settings import TrainConfig

CONFIG = TrainConfig(epochs=4, learning_rate=1e-2, weight_decay=1e-2, schedule="cosine")
BATCH = 32


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


def stack(models: list[nn.Module], shared: Training) -> StackTrainer:
    return StackTrainer(
        models, shared.train, shared.validation, shared.config, batch_size=BATCH, seeds=list(range(len(models)))
    )


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


def test_a_model_that_diverges_fails_alone() -> None:
    models = [make_net(4), make_net(5)]
    with torch.no_grad():
        next(models[0].parameters()).fill_(float("nan"))
    found = train_cohort(models, training(TrainConfig(epochs=2, stacked=True)), seeds=[0, 1])
    assert isinstance(found[0], EvaluationError)
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
@pytest.mark.parametrize(("stacked", "workers"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_a_cohort_is_trained_as_one_by_one(stacked: bool, workers: int, dropout: float) -> None:
    shared = training(TrainConfig(epochs=2, learning_rate=1e-2, stacked=stacked))
    models = [make_net(width, dropout) for width in (8, 3, 12, 8)]  # few and small enough for one stack
    state, cores = torch.random.get_rng_state(), torch.get_num_threads()
    found = train_cohort(models, shared, seeds=range(4), workers=workers)
    for one, alone in zip(found, one_by_one(models, shared), strict=True):
        assert isinstance(one, TrainResult)
        assert_close(one, alone)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == cores


def test_the_models_of_a_cohort_are_not_changed() -> None:
    models = [make_net(8), make_net(6)]
    before = [[t.clone() for t in m.state_dict().values()] for m in models]
    train_cohort(models, training(TrainConfig(epochs=1, stacked=True)), seeds=[0, 1], workers=2)
    for model, tensors in zip(models, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), tensors, strict=True))
        assert model.training


@pytest.mark.parametrize("stacked", [False, True])
def test_halving_keeps_the_better_half_at_each_rung(stacked: bool) -> None:
    shared = training(TrainConfig(epochs=5, learning_rate=1e-2, halving=2, stacked=stacked))
    found = train_cohort([make_net(width) for width in (3, 4, 5, 6, 7, 8)], shared, seeds=range(6))
    results = [r for r in found if isinstance(r, TrainResult)]
    assert sorted(len(r.epochs) for r in results) == [1, 1, 1, 2, 4, 5]  # 6 at epoch 1, 3 at 2, 2 at 4, 1 to the end
    first = sorted(results, key=lambda r: r.epochs[0].validation_loss)
    assert {len(r.epochs) for r in first[:3]} == {2, 4, 5}


def test_an_interrupt_ends_a_cohort_on_threads() -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cohort([make_net(8), make_net(6)], training(), seeds=[0, 1], workers=2, stop=interrupt)


def test_small_models_share_a_class_and_large_ones_do_not() -> None:
    def sizes(width: int) -> list[list[int]]:
        return [[width, 16], [width], [5, width], [5]]

    alike = size_classes([sizes(width) for width in (8, 16, 12, 9)], 32)
    assert alike == [[1, 2, 3, 0]]
    assert size_classes([sizes(8), sizes(100_000)], 512) == [[1], [0]]
    assert size_classes([sizes(100_000), sizes(90_000)], 512) == [[0], [1]]
    found = size_classes([sizes(8)] * 40, 32)
    assert sorted(i for members in found for i in members) == list(range(40))
    assert max(map(len, found)) == 16
    assert size_classes([], 32) == []
