"""Training one model: deterministic, and without a trace in the process around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import ConfigError, EvaluationError
from dovetail.settings import TrainConfig

__all__ = [
    "EpochReport",
    "TrainResult",
    "Trainer",
    "batches",
    "check_loss",
    "check_outputs",
    "cross_entropy",
    "is_finished",
    "keep_random_state",
    "learning_rate",
    "make_optimizer",
    "random_states",
    "set_learning_rate",
    "set_random_states",
    "train_model",
    "validation_slices",
]


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


def check_outputs(model: nn.Module, split: Split) -> None:
    """That a model runs on the data and tells its classes apart, found out on two samples before training begins.

    Args:
        model: read, never changed.
        split: what it is to be trained on.

    Raises:
        ConfigError: The model cannot run on the samples, or does not give [samples, classes] with an output for every
            class.
    """
    copied = copy.deepcopy(model).eval().to(split.targets.device)
    inputs = tuple(tensor[:2] for tensor in split.inputs)
    shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
    try:
        with torch.no_grad():
            outputs = copied(*inputs)
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"model: must run on samples of the data, here of shape {shapes}, but "
            f"raised {type(error).__name__}: {error}"
        ) from error
    classes = int(split.targets.max()) + 1
    got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < classes:
        raise ConfigError(
            f"model: must give outputs [samples, classes], one for each of {classes} classes in the data, got {got} "
            f"from inputs {shapes}."
        )


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
    trainer = Trainer(model, train, validation, config, batch_size=batch_size, seed=seed)
    while not trainer.is_finished:
        progress(trainer.run_epoch())
        if stop():
            break
    return trainer.result()


class Trainer:
    """The training of one model, epoch by epoch; arguments as for `train_model`."""

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        validation: Split,
        config: TrainConfig,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.config = config
        self.reports: list[EpochReport] = []
        self._train, self._validation, self._batch_size = train, validation, batch_size
        self._model = copy.deepcopy(model).to(train.targets.device)
        for parameter in self._model.parameters():
            parameter.requires_grad_(True)
        self._optimizer = make_optimizer(self._model.parameters(), config)
        self._order = torch.Generator().manual_seed(seed)
        self._randomness = Randomness(seed, train.targets.device)
        self._best: tuple[float, int, dict[str, Tensor]] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are run, or patience is at its end."""
        return is_finished(self.config, self.reports)

    def run_epoch(self) -> EpochReport:
        """Train for one epoch and validate.

        Raises:
            EvaluationError: The loss became NaN or infinite.
        """
        epoch = len(self.reports) + 1
        with self._randomness.borrowed():
            train_loss = self._run_steps(epoch)
            report = EpochReport(epoch, train_loss, *_validate(self._model, self._validation, self._batch_size))
        self.reports.append(report)
        if self._best is None or report.validation_loss < self._best[0]:
            state = _state(self._model) if self.config.patience is not None else {}
            self._best = (report.validation_loss, epoch, state)
        return report

    def result(self) -> TrainResult:
        """The model as trained so far: of the best epoch under patience, of the last one otherwise."""
        last = len(self.reports)
        if self.config.patience is not None and self._best is not None and self._best[1] != last:
            last = self._best[1]
            self._model.load_state_dict(self._best[2])
        return TrainResult(self._model.eval(), tuple(self.reports), last)

    def _run_steps(self, epoch: int) -> float:
        model, train, config = self._model.train(), self._train, self.config
        device = train.targets.device
        total = torch.zeros((), dtype=torch.float64, device=device)
        chosen = list(batches(len(train), self._batch_size, self._order))
        for step, rows in enumerate(rows.to(device) for rows in chosen):
            rate = learning_rate(config, (epoch - 1) * len(chosen) + step, config.epochs * len(chosen))
            set_learning_rate(self._optimizer, rate)
            self._optimizer.zero_grad(set_to_none=True)
            inputs = tuple(tensor.index_select(0, rows) for tensor in train.inputs)
            loss = cross_entropy(model(*inputs), train.targets[rows]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach().double() * len(rows)
        mean = float(total) / len(train)
        check_loss(mean, epoch)
        return mean


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(outputs)[target] of each sample, in nats.

    The classes are brought to the front: a softmax over a few neighbouring numbers is computed one row at a time, one
    over distant ones is vectorised, and takes a tenth of the time with five classes.

    Args:
        outputs: [..., samples, classes].
        targets: [..., samples].

    Returns:
        [..., samples].
    """
    by_class = outputs.movedim(-1, 0).flatten(1)[None]  # [1, classes, all samples]
    return F.cross_entropy(by_class, targets.reshape(1, -1), reduction="none").view(targets.shape)


def is_finished(config: TrainConfig, reports: Sequence[EpochReport]) -> bool:
    """Whether all epochs are run, or the best validation loss is `patience` epochs old."""
    if len(reports) >= config.epochs:
        return True
    if config.patience is None or not reports:
        return False
    return len(reports) - min(reports, key=lambda report: report.validation_loss).epoch >= config.patience


def check_loss(loss: float, epoch: int) -> None:
    """Stop at a loss that is NaN or infinite.

    Raises:
        EvaluationError: It is.
    """
    if not math.isfinite(loss):
        raise EvaluationError(f"training: the loss became {loss} in epoch {epoch}. Lower train.learning_rate.")


def _validate(model: nn.Module, validation: Split, batch_size: int) -> tuple[float, float]:
    """Mean cross entropy and the share that is right."""
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for rows in validation_slices(validation, batch_size):
            outputs = model(*(tensor[rows] for tensor in validation.inputs))
            loss += float(cross_entropy(outputs, validation.targets[rows]).double().sum())
            right += int((outputs.argmax(1) == validation.targets[rows]).sum())
    return loss / len(validation), right / len(validation)


def validation_slices(validation: Split, batch_size: int) -> list[slice]:
    """The samples that are validated at a time."""
    size = max(batch_size, 1024)
    return [slice(start, start + size) for start in range(0, len(validation), size)]


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


class Randomness:
    """A random state that starts at a seed and goes on where it was left, apart from the process's own."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        with keep_random_state(device):
            torch.manual_seed(seed)
            self._states = random_states(device)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """The process's random state is this one inside, and what it was before afterwards."""
        with keep_random_state(self._device):
            set_random_states(self._states, self._device)
            yield
            self._states = random_states(self._device)


def random_states(device: torch.device) -> list[Tensor]:
    """The process's random states that a model on a device may draw from."""
    if device.type == "cpu":
        return [torch.random.get_rng_state()]
    return [torch.random.get_rng_state(), torch.get_device_module(device).get_rng_state(device)]


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Set the process's random states to what `random_states` gave."""
    torch.random.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state, device)


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    """Afterwards the process's random states are what they were before."""
    before = random_states(device)
    try:
        yield
    finally:
        set_random_states(before, device)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
