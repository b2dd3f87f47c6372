"""Training one model: deterministic, and without a trace in the process around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.settings import TrainConfig

__all__ = ["EpochReport", "TrainResult", "batches", "learning_rate", "make_optimizer", "train_model"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch's figures.

    Args:
        epoch: From 1.
        train_loss: Mean cross entropy over the training samples, as they were met.
        validation_loss: Mean cross entropy over the validation split after the epoch.
        accuracy: Share of the validation split that is right after the epoch.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained model and how it got there.

    Args:
        model: A new model in eval mode; the one that was given is as it was.
        epochs: A report for each epoch that was run.
        best_epoch: The epoch whose weights the model has.
    """

    model: nn.Module
    epochs: tuple[EpochReport, ...]
    best_epoch: int


def train_model(
    model: nn.Module,
    train: Split,
    validation: Split,
    config: TrainConfig,
    *,
    batch_size: int,
    seed: int,
    progress: Callable[[EpochReport], None] = lambda report: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a copy of a model on mean cross entropy; a quantised model is so trained quantisation-aware.

    The result follows from the arguments alone: samples are shuffled by a generator of this call, and whatever a layer
    draws (dropout) is drawn from a forked random state that starts at the seed. Under `patience` the weights of the
    epoch with the lowest validation loss are kept, otherwise the last epoch's.

    Args:
        model: On the device to train on; it is not changed.
        train: To train on, on the same device.
        validation: To report on, and to stop early by.
        config: Epochs, optimizer, schedule, patience.
        batch_size: Samples per step.
        seed: Of the shuffling and of random layers.
        progress: Told of each epoch.
        stop: Asked after each epoch; True ends training there.

    Raises:
        EvaluationError: The loss became NaN or infinite.
    """
    device = train.targets.device
    trained = copy.deepcopy(model).to(device)
    for parameter in trained.parameters():
        parameter.requires_grad_(True)
    reports: list[EpochReport] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    with isolated_randomness(seed, device):
        optimizer = make_optimizer(trained.parameters(), config)
        order = torch.Generator().manual_seed(seed)
        for epoch in range(1, config.epochs + 1):
            train_loss = _run_epoch(trained, train, optimizer, config, batch_size, order, epoch)
            report = EpochReport(epoch, train_loss, *_validate(trained, validation, batch_size))
            reports.append(report)
            progress(report)
            if best is None or report.validation_loss < best[0]:
                best = (report.validation_loss, epoch, _state(trained) if config.patience is not None else {})
            if stop() or (config.patience is not None and epoch - best[1] >= config.patience):
                break
    last = reports[-1].epoch
    if config.patience is not None and best is not None and best[1] != last:
        trained.load_state_dict(best[2])
        last = best[1]
    return TrainResult(trained.eval(), tuple(reports), last)


def _run_epoch(
    model: nn.Module,
    train: Split,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    batch_size: int,
    order: torch.Generator,
    epoch: int,
) -> float:
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=train.targets.device)
    chosen = list(batches(len(train), batch_size, order))
    for step, rows in enumerate(chosen):
        rows = rows.to(train.targets.device)
        set_learning_rate(
            optimizer, learning_rate(config, (epoch - 1) * len(chosen) + step, config.epochs * len(chosen))
        )
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(*(tensor[rows] for tensor in train.inputs)), train.targets[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach().double() * len(rows)
    mean = float(total) / len(train)
    if not math.isfinite(mean):
        raise EvaluationError(f"training: the loss became {mean} in epoch {epoch}. Lower train.learning_rate.")
    return mean


def _validate(model: nn.Module, validation: Split, batch_size: int) -> tuple[float, float]:
    """Mean cross entropy and the share that is right."""
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(validation), max(batch_size, 1024)):
            rows = slice(start, start + max(batch_size, 1024))
            outputs = model(*(tensor[rows] for tensor in validation.inputs))
            loss += float(F.cross_entropy(outputs, validation.targets[rows], reduction="sum"))
            right += int((outputs.argmax(1) == validation.targets[rows]).sum())
    return loss / len(validation), right / len(validation)


def batches(samples: int, batch_size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Indices of one epoch's batches, shuffled.

    A last batch of one sample, which batch norm cannot take, joins the one before.
    """
    shuffled = torch.randperm(samples, generator=order)
    starts = list(range(0, samples, batch_size))
    if len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], samples]
    return (shuffled[start:end] for start, end in zip(starts, ends, strict=True))


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate at a step, from 0: `constant`, or `cosine`: learning_rate x (1 + cos(pi x step / steps)) / 2."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of an optimizer a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizer(parameters: Iterable[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that a config names.

    All of them work element by element, so that models can be trained side by side.
    """
    rate, decay = config.learning_rate, config.weight_decay
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=config.momentum, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay, momentum=config.momentum, foreach=True)


@contextmanager
def isolated_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """A random state that starts at the seed and is gone afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
