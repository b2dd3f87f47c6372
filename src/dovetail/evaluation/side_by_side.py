"""Training several models side by side: one loss, one backward pass and one optimizer step for all of them.

Each model keeps its own code, widths, formats, batches and seed. What is shared is what a step costs beside its
arithmetic: on a network of a few thousand parameters that is most of it. Models that are alike can compute as one on
top (`Stack`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation.stacked import Stack, check_untouched
from dovetail.evaluation.training import (
    EpochReport,
    TrainResult,
    batches,
    check_loss,
    cross_entropy,
    is_finished,
    learning_rate,
    make_optimizer,
    random_states,
    set_learning_rate,
    validation_slices,
)
from dovetail.settings import TrainConfig

__all__ = ["SideBySideTrainer"]

Tensors = dict[str, Tensor]


class _Unit(Protocol):
    """Models that compute together."""

    num_models: int

    @property
    def parameters(self) -> tuple[Tensor, ...]: ...
    def train(self, mode: bool) -> None: ...
    def outputs(self, inputs: Sequence[tuple[Tensor, ...]]) -> Tensor: ...
    def outputs_alike(self, inputs: tuple[Tensor, ...]) -> Tensor: ...
    def mask_gradients(self) -> None: ...
    def copy_into(self, place: int, tensors: Tensors) -> None: ...
    def keep(self, places: Sequence[int]) -> list[tuple[Tensor, Tensor]]: ...


class _Alone:
    """A unit of one model, run as it is."""

    num_models = 1

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.parameters = tuple(parameter.requires_grad_() for parameter in model.parameters())

    def train(self, mode: bool) -> None:
        self._model.train(mode)

    def outputs(self, inputs: Sequence[tuple[Tensor, ...]]) -> Tensor:
        return self._model(*inputs[0])[None]  # type: ignore[no-any-return]

    def outputs_alike(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self._model(*inputs)[None]  # type: ignore[no-any-return]

    def mask_gradients(self) -> None:
        """Nothing is padded."""

    def copy_into(self, place: int, tensors: Tensors) -> None:
        for name, tensor in _tensors(self._model).items():
            tensors[name].detach().copy_(tensor.detach())

    def keep(self, places: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [(parameter, parameter) for parameter in self.parameters]


class SideBySideTrainer:
    """The training of several models side by side, epoch by epoch; the same as `Trainer` for each.

    To the bit where a model is a class of its own, to float tolerance where it shares one.

    Args:
        models: Of any widths and formats. They are not changed.
        classes: Indices of models, each once: those of one class compute as one. None: each is a class of its own.
        train: To train on.
        validation: To report on, and to stop early by.
        config: Epochs, optimizer, schedule, patience.
        batch_size: Samples per step.
        seeds: One for each model.

    Raises:
        CannotStackError: The models of a class cannot compute as one.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        train: Split,
        validation: Split,
        config: TrainConfig,
        *,
        batch_size: int,
        seeds: Sequence[int],
        classes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.config = config
        self._train, self._validation, self._batch_size = train, validation, batch_size
        self._models = [copy.deepcopy(model) for model in models]
        self._orders = [torch.Generator().manual_seed(seed) for seed in seeds]
        classes = [[index] for index in range(len(models))] if classes is None else classes
        self._units: list[tuple[_Unit, list[int]]] = [(self._unit(members), list(members)) for members in classes]
        self._optimizer = make_optimizer(self._parameters(), config)
        self._failures: dict[int, EvaluationError] = {}
        self._best: dict[int, tuple[float, int, Tensors]] = {}
        self.reports: list[list[EpochReport]] = [[] for _ in models]

    @property
    def num_models(self) -> int:
        """How many models were given."""
        return len(self._models)

    @property
    def is_finished(self) -> bool:
        """Whether no model is in training any more."""
        return not self._units

    @property
    def active(self) -> tuple[int, ...]:
        """The models that are in training."""
        return tuple(index for _, members in self._units for index in members)

    def run_epoch(self) -> None:
        """Train every active model for one epoch and validate; those that diverge or have lost patience leave.

        Raises:
            CannotStackError: A model draws random numbers, which would be another's.
        """
        active = self.active
        epoch = len(self.reports[active[0]]) + 1
        train_losses = self._run_steps(epoch)
        losses, shares = self._validate()
        for place, index in enumerate(active):
            try:
                check_loss(train_losses[place], epoch)
            except EvaluationError as error:
                self._failures[index] = error
                continue
            self.reports[index].append(EpochReport(epoch, train_losses[place], losses[place], shares[place]))
            if index not in self._best or losses[place] < self._best[index][0]:
                kept = self._current(index) if self.config.patience is not None else {}
                self._best[index] = (losses[place], epoch, kept)
        self.drop([i for i in active if i in self._failures or is_finished(self.config, self.reports[i])])

    def drop(self, indices: Sequence[int]) -> None:
        """Take models out of training; their results are as of now."""
        gone = set(indices) & set(self.active)
        if not gone:
            return
        for unit, members in self._units:
            for place, index in enumerate(members):
                if index in gone and index not in self._failures:
                    self._keep(unit, place, index)
        state = self._optimizer.state
        left: list[tuple[_Unit, list[int]]] = []
        carried: dict[Tensor, object] = {}
        for unit, members in self._units:
            places = [place for place, index in enumerate(members) if index not in gone]
            if len(places) == len(members):
                carried |= {parameter: state[parameter] for parameter in unit.parameters}
            elif places:
                for before, now in unit.keep(places):
                    carried[now] = _cut(state[before], before.shape, torch.tensor(places))
            if places:
                left.append((unit, [members[place] for place in places]))
        self._units = left
        if left:
            self._optimizer = make_optimizer(self._parameters(), self.config)
            self._optimizer.state.update(carried)

    def results(self) -> list[TrainResult | EvaluationError]:
        """The trained models in the order given, or why one failed; what is still in training is taken as it is."""
        self.drop(self.active)
        found: list[TrainResult | EvaluationError] = []
        for index, model in enumerate(self._models):
            if index in self._failures:
                found.append(self._failures[index])
                continue
            reports = tuple(self.reports[index])
            kept = self._best[index][1] if self.config.patience is not None and reports else len(reports)
            found.append(TrainResult(model.eval(), reports, kept))
        return found

    def _unit(self, members: Sequence[int]) -> _Unit:
        if len(members) == 1:
            return _Alone(copy.deepcopy(self._models[members[0]]))
        return Stack([self._models[index] for index in members], self._train)

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for unit, _ in self._units for parameter in unit.parameters)

    def _run_steps(self, epoch: int) -> list[float]:
        train, config, active = self._train, self.config, self.active
        device = train.targets.device
        orders = [list(batches(len(train), self._batch_size, self._orders[index])) for index in active]
        steps = len(orders[0])
        total = torch.zeros(len(active), dtype=torch.float64, device=device)
        untouched = random_states(device)
        for unit, _ in self._units:
            unit.train(True)
        for step, chosen in enumerate(zip(*orders, strict=True)):
            set_learning_rate(self._optimizer, learning_rate(config, (epoch - 1) * steps + step, config.epochs * steps))
            self._optimizer.zero_grad(set_to_none=True)
            rows = torch.stack(chosen).to(device)
            losses = cross_entropy(self._outputs(rows), train.targets[rows]).mean(1)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            for unit, _ in self._units:
                unit.mask_gradients()
            self._optimizer.step()
            total += losses.detach().double() * rows.shape[1]
            if step == 0 or step == steps - 1:
                check_untouched(untouched, device)
        return (total / len(train)).tolist()

    def _outputs(self, rows: Tensor) -> Tensor:
        """Each active model's outputs on its own rows: [models, samples, classes]."""
        found, first = [], 0
        for unit, members in self._units:
            own = rows[first : first + len(members)]
            found.append(unit.outputs([tuple(t.index_select(0, r) for t in self._train.inputs) for r in own]))
            first += len(members)
        return torch.cat(found)

    def _validate(self) -> tuple[list[float], list[float]]:
        """Mean cross entropy and the share that is right, of each active model."""
        split, count = self._validation, len(self.active)
        for unit, _ in self._units:
            unit.train(False)
        loss = torch.zeros(count, dtype=torch.float64)
        right = torch.zeros(count, dtype=torch.int64)
        with torch.no_grad():
            for rows in validation_slices(split, self._batch_size):
                inputs = tuple(tensor[rows] for tensor in split.inputs)
                outputs = torch.cat([unit.outputs_alike(inputs) for unit, _ in self._units])
                targets = split.targets[rows].expand(count, -1)
                loss += cross_entropy(outputs, targets).double().sum(1).cpu()
                right += (outputs.argmax(2) == targets).sum(1).cpu()
        return (loss / len(split)).tolist(), (right.double() / len(split)).tolist()

    def _current(self, index: int) -> Tensors:
        """A model's tensors as they are now."""
        found = {name: tensor.detach().clone() for name, tensor in _tensors(self._models[index]).items()}
        for unit, members in self._units:
            if index in members:
                unit.copy_into(members.index(index), found)
        return found

    def _keep(self, unit: _Unit, place: int, index: int) -> None:
        own = _tensors(self._models[index])
        if self.config.patience is None or index not in self._best:
            unit.copy_into(place, own)
            return
        for name, tensor in self._best[index][2].items():
            own[name].detach().copy_(tensor)


def _tensors(model: nn.Module) -> Tensors:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _cut(state: dict[str, object], shape: torch.Size, rows: Tensor) -> dict[str, object]:
    """An optimizer's state of one parameter, for some of its rows."""
    return {
        key: value[rows].clone() if isinstance(value, Tensor) and value.shape == shape else value
        for key, value in state.items()
    }
