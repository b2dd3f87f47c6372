"""Training follows from its arguments alone, and leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import ConfigError, EvaluationError
from dovetail.evaluation.training import EpochReport, batches, check_outputs, learning_rate, train_model
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.settings import TrainConfig
from dovetail.transforms import apply


def make_split(samples: int = 200, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    return Split((x,), (x[:, 0] * x[:, 1] > 0).long())


def make_net(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))


def state(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def run(model: nn.Module, seed: int = 0, **options: object):
    config = TrainConfig(**{"epochs": 3, "learning_rate": 1e-2, **options})  # type: ignore[arg-type]
    return train_model(model, make_split(), make_split(seed=1), config, batch_size=32, seed=seed)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(one), state(other), strict=True))


def test_the_same_seed_gives_the_same_model_to_the_bit_even_with_dropout() -> None:
    model = make_net(dropout=0.5)
    first = run(model, seed=3)
    torch.rand(17)
    again, other = run(model, seed=3), run(model, seed=4)
    assert same(first.model, again.model)
    assert first.epochs == again.epochs
    assert not same(first.model, other.model)


def test_the_model_and_the_global_random_state_are_left_as_they_were() -> None:
    model = make_net(dropout=0.5)
    before, random_state, mode = state(model), torch.random.get_rng_state(), model.training
    run(model)
    assert all(torch.equal(a, b) for a, b in zip(before, state(model), strict=True))
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert model.training is mode
    assert all(p.grad is None for p in model.parameters())


def test_training_equals_a_plain_loop_written_by_hand() -> None:
    model, train = make_net(), make_split()
    by_hand = make_net()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(5)
    for _ in range(2):
        by_hand.train()
        shuffled = torch.randperm(200, generator=order)
        for start in range(0, 200, 32):
            rows = shuffled[start : start + 32]
            optimizer.zero_grad()
            F.cross_entropy(by_hand(train.inputs[0][rows]), train.targets[rows]).backward()
            optimizer.step()
    result = run(model, seed=5, epochs=2, optimizer="sgd", learning_rate=0.1)
    for a, b in zip(state(result.model), state(by_hand), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_every_optimizer_lowers_the_loss(optimizer: str) -> None:
    reports = run(make_net(), optimizer=optimizer, epochs=8).epochs
    assert reports[-1].train_loss < 0.9 * reports[0].train_loss


def test_a_quantised_model_trains_through_its_rounding() -> None:
    model = make_net().eval()
    graph = trace(model, (torch.zeros(2, 4),))
    plan = Plan.of({Site("4", kind): parse("fixed(6,3)") for kind in (SiteKind.DATA_IN, SiteKind.WEIGHT)})
    result = run(apply(graph, model, plan), epochs=8)
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    weight = dict(result.model.named_parameters())["4.weight"]
    assert not torch.equal(weight, parse("fixed(6,3)").quantise(weight))  # kept in full precision


def test_the_result_is_in_eval_mode_and_reports_its_validation_split() -> None:
    result = run(make_net())
    split = make_split(seed=1)
    assert not result.model.training
    with torch.no_grad():
        outputs = result.model(split.inputs[0])
    assert result.epochs[-1].accuracy == (outputs.argmax(1) == split.targets).sum().item() / len(split)
    assert result.epochs[-1].validation_loss == pytest.approx(F.cross_entropy(outputs, split.targets).item(), rel=1e-5)


def test_patience_stops_and_keeps_the_best_epochs_weights() -> None:
    result = run(make_net(), epochs=60, patience=2, learning_rate=0.5)
    best = min(result.epochs, key=lambda report: report.validation_loss)
    assert len(result.epochs) == best.epoch + 2
    assert result.best_epoch == best.epoch
    shorter = run(make_net(), epochs=best.epoch, learning_rate=0.5)
    assert same(result.model, shorter.model)


def test_progress_hears_of_every_epoch_and_stop_ends_training() -> None:
    heard: list[EpochReport] = []
    split = make_split()
    result = train_model(
        make_net(),
        split,
        split,
        TrainConfig(epochs=9),
        batch_size=32,
        seed=0,
        progress=heard.append,
        stop=lambda: len(heard) == 4,
    )
    assert tuple(heard) == result.epochs
    assert [report.epoch for report in heard] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_epoch() -> None:
    with pytest.raises(EvaluationError, match=r"the loss became nan in epoch 1\. Lower train\.learning_rate"):
        run(make_net(), optimizer="sgd", learning_rate=1e30)


def test_batches_cover_every_sample_once_and_none_has_a_single_sample() -> None:
    for samples in (1, 31, 32, 33, 64, 65, 100):
        found = list(batches(samples, 32, torch.Generator().manual_seed(0)))
        assert sorted(torch.cat(found).tolist()) == list(range(samples))
        assert samples == 1 or min(map(len, found)) > 1


def test_the_cosine_schedule_starts_at_the_rate_halves_half_way_and_ends_at_zero() -> None:
    config = TrainConfig(schedule="cosine", learning_rate=0.4)
    assert learning_rate(config, 0, 10) == 0.4
    assert learning_rate(config, 5, 10) == pytest.approx(0.2)
    assert learning_rate(config, 10, 10) == pytest.approx(0)
    assert math.isclose(learning_rate(TrainConfig(learning_rate=0.4), 7, 10), 0.4)


def test_a_model_that_does_not_fit_the_data_is_an_error_before_training_and_stays_as_it_is() -> None:
    split = make_split()
    model = make_net().train()
    before = state(model)
    check_outputs(model, split)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, state(model), strict=True))
    with pytest.raises(ConfigError, match=r"must run on samples of the data, here of shape \[2, 4\].*RuntimeError"):
        check_outputs(nn.Linear(7, 2), split)
    with pytest.raises(ConfigError, match=r"one for each of 2 classes in the data, got \[2, 1\]"):
        check_outputs(nn.Linear(4, 1), split)
    with pytest.raises(ConfigError, match="got tuple"):
        check_outputs(nn.LSTM(4, 2), split)
