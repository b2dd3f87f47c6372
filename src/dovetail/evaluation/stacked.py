"""Training small models side by side: their parameters stacked, one step for all.

Models of one architecture and different widths are padded with zeros to the widest. A padded channel's weights start
at zero and their gradients are masked, so they stay zero and no other channel sees them. Whether that holds for a
model's code (it does not where channels are averaged or normalised over) is tried on a batch, against the models one by
one, before any training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation.training import (
    EpochReport,
    TrainResult,
    batches,
    check_loss,
    is_finished,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from dovetail.settings import TrainConfig

__all__ = ["CannotStackError", "StackTrainer"]

_PROBE = 16  # samples on which stacked and single models are compared
_VALIDATED = 1024  # samples validated at once
Tensors = dict[str, Tensor]


class CannotStackError(Exception):
    """These models cannot be trained side by side; train them one by one."""


class StackTrainer:
    """The training of several models side by side, epoch by epoch; the same as `Trainer` for each, to float tolerance.

    Args:
        models: Of one architecture; widths may differ. They are not changed.
        train: To train on.
        validation: To report on, and to stop early by.
        config: Epochs, optimizer, schedule, patience.
        batch_size: Samples per step.
        seeds: One for each model.

    Raises:
        CannotStackError: The models' code does not allow it.
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
    ) -> None:
        self.config = config
        self._train, self._validation, self._batch_size = train, validation, batch_size
        self._models = [copy.deepcopy(model) for model in models]
        self._template = copy.deepcopy(models[0])
        self._orders = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._active = list(range(len(models)))
        self._failures: dict[int, EvaluationError] = {}
        self._best: dict[int, tuple[float, int, Tensors]] = {}
        self.reports: list[list[EpochReport]] = [[] for _ in models]
        self._parameters = {
            n: t.requires_grad_() for n, t in _stack([dict(m.named_parameters()) for m in models]).items()
        }
        self._buffers = _stack([dict(m.named_buffers()) for m in models])
        self._masks = _masks([dict(m.named_parameters()) for m in models])
        self._probe()
        self._optimizer = make_optimizer(self._parameters.values(), config)

    @property
    def num_models(self) -> int:
        """How many models were given."""
        return len(self._models)

    @property
    def is_finished(self) -> bool:
        """Whether no model is in training any more."""
        return not self._active

    @property
    def active(self) -> tuple[int, ...]:
        """The models that are in training."""
        return tuple(self._active)

    def run_epoch(self) -> None:
        """Train every active model for one epoch and validate; those that diverge or have lost patience leave."""
        epoch = len(self.reports[self._active[0]]) + 1
        train_losses = self._run_steps(epoch)
        losses, shares = self._validate()
        for place, index in enumerate(self._active):
            try:
                check_loss(train_losses[place], epoch)
            except EvaluationError as error:
                self._failures[index] = error
                continue
            self.reports[index].append(EpochReport(epoch, train_losses[place], losses[place], shares[place]))
            if index not in self._best or losses[place] < self._best[index][0]:
                self._best[index] = (losses[place], epoch, self._own(place) if self.config.patience is not None else {})
        self.drop([i for i in self._active if i in self._failures or is_finished(self.config, self.reports[i])])

    def drop(self, indices: Sequence[int]) -> None:
        """Take models out of training; their results are as of now."""
        gone = set(indices) & set(self._active)
        if not gone:
            return
        for place, index in enumerate(self._active):
            if index in gone and index not in self._failures:
                self._keep(place, index)
        places = [place for place, index in enumerate(self._active) if index not in gone]
        self._active = [self._active[place] for place in places]
        if self._active:
            self._select(torch.tensor(places))

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

    def _run_steps(self, epoch: int) -> list[float]:
        train, config = self._train, self.config
        device = train.targets.device
        self._template.train()
        orders = [list(batches(len(train), self._batch_size, self._orders[index])) for index in self._active]
        steps = len(orders[0])
        total = torch.zeros(len(self._active), dtype=torch.float64, device=device)
        for step, chosen in enumerate(zip(*orders, strict=True)):
            rows = torch.stack(chosen).to(device)
            set_learning_rate(self._optimizer, learning_rate(config, (epoch - 1) * steps + step, config.epochs * steps))
            self._optimizer.zero_grad(set_to_none=True)
            losses = self._losses(tuple(tensor[rows] for tensor in train.inputs), train.targets[rows])
            losses.sum().backward()  # type: ignore[no-untyped-call]
            for name, mask in self._masks.items():
                gradient = self._parameters[name].grad
                if gradient is not None:
                    gradient.mul_(mask)
            self._optimizer.step()
            total += losses.detach().double() * rows.shape[1]
        return (total / len(train)).tolist()

    def _losses(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Mean cross entropy of each model on its own batch."""
        outputs = vmap(self._forward)(self._parameters, self._buffers, inputs)
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.reshape(targets.shape).mean(1)

    def _forward(self, parameters: Tensors, buffers: Tensors, inputs: tuple[Tensor, ...]) -> Tensor:
        return functional_call(self._template, (parameters, buffers), inputs)  # type: ignore[no-any-return]

    def _validate(self) -> tuple[list[float], list[float]]:
        """Mean cross entropy and the share that is right, of each active model."""
        split, count = self._validation, len(self._active)
        self._template.eval()
        loss = torch.zeros(count, dtype=torch.float64)
        right = torch.zeros(count, dtype=torch.int64)
        with torch.no_grad():
            for start in range(0, len(split), _VALIDATED):
                rows = slice(start, start + _VALIDATED)
                inputs = tuple(tensor[rows] for tensor in split.inputs)
                outputs = vmap(self._forward, in_dims=(0, 0, None))(self._parameters, self._buffers, inputs)
                targets = split.targets[rows].expand(count, -1)
                each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").reshape(count, -1)
                loss += each.double().sum(1).cpu()
                right += (outputs.argmax(2) == targets).sum(1).cpu()
        return (loss / len(split)).tolist(), (right.double() / len(split)).tolist()

    def _own(self, place: int) -> Tensors:
        """One model's tensors, cut to its own shapes."""
        shapes = self._models[self._active[place]].state_dict(keep_vars=True)
        stacked = self._parameters | self._buffers
        return {
            name: stacked[name][place][tuple(slice(n) for n in tensor.shape)].detach().clone()
            for name, tensor in shapes.items()
        }

    def _keep(self, place: int, index: int) -> None:
        state = self._best[index][2] if self.config.patience is not None and index in self._best else self._own(place)
        self._models[index].load_state_dict(state)

    def _select(self, places: Tensor) -> None:
        """Go on with some of the models: tensors, masks and the optimizer's state are cut to them."""
        old = dict(self._parameters)
        self._parameters = {n: t.detach()[places].clone().requires_grad_() for n, t in old.items()}
        self._buffers = {n: t[places].clone() for n, t in self._buffers.items()}
        self._masks = {n: t[places] for n, t in self._masks.items()}
        optimizer = make_optimizer(self._parameters.values(), self.config)
        for name, parameter in old.items():
            optimizer.state[self._parameters[name]] = {
                key: value[places].clone() if isinstance(value, Tensor) and value.shape == parameter.shape else value
                for key, value in self._optimizer.state[parameter].items()
            }
        self._optimizer = optimizer

    def _probe(self) -> None:
        """Compare losses and gradients on a batch, stacked and one by one, for the first and the last model."""
        rows = torch.arange(min(_PROBE, len(self._train)))
        inputs, targets = tuple(tensor[rows] for tensor in self._train.inputs), self._train.targets[rows]
        count = len(self._models)
        buffers = {name: tensor.clone() for name, tensor in self._buffers.items()}
        state = torch.random.get_rng_state()
        try:
            self._template.train()
            losses = self._losses(tuple(t.expand(count, *t.shape) for t in inputs), targets.expand(count, -1))
            gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()), allow_unused=True)
            stacked: dict[str, Tensor | None] = dict(zip(self._parameters, gradients, strict=True))
            for place in {0, count - 1}:
                self._compare(place, float(losses[place].detach()), stacked, inputs, targets)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise CannotStackError(str(error)) from error
        if not torch.equal(state, torch.random.get_rng_state()):
            torch.random.set_rng_state(state)
            raise CannotStackError("the model draws random numbers")
        self._buffers = buffers

    def _compare(
        self, place: int, loss: float, stacked: dict[str, Tensor | None], inputs: tuple[Tensor, ...], targets: Tensor
    ) -> None:
        model = copy.deepcopy(self._models[place]).train()
        parameters = {name: parameter.requires_grad_() for name, parameter in model.named_parameters()}
        alone = F.cross_entropy(model(*inputs), targets)
        gradients = torch.autograd.grad(alone, list(parameters.values()), allow_unused=True)
        if not math.isclose(loss, float(alone.detach()), rel_tol=1e-4, abs_tol=1e-6):
            raise CannotStackError("padding changes what the model computes")
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            padded = stacked[name]
            if gradient is None or padded is None:
                continue
            own = padded[place][tuple(slice(n) for n in parameter.shape)]
            if not torch.allclose(own, gradient, rtol=1e-3, atol=1e-5 * max(float(gradient.abs().max()), 1e-3)):
                raise CannotStackError(f"padding changes the gradient of {name}")


def _stack(tensors: Sequence[Tensors]) -> Tensors:
    """Tensors of each name, padded with zeros to the largest, stacked."""
    if any(list(own) != list(tensors[0]) for own in tensors):
        raise CannotStackError("the models' tensors have different names")
    stacked = {}
    for name in tensors[0]:
        each = [own[name].detach() for own in tensors]
        if len({(tensor.ndim, tensor.dtype) for tensor in each}) > 1:
            raise CannotStackError(f"{name} has different ranks or dtypes")
        whole = each[0].new_zeros(len(each), *_largest(each))
        for place, tensor in enumerate(each):
            whole[place][tuple(slice(n) for n in tensor.shape)] = tensor
        stacked[name] = whole
    return stacked


def _masks(tensors: Sequence[Tensors]) -> Tensors:
    """1 where a model has an element and 0 where it is padded, for those names whose shapes differ."""
    masks = {}
    for name in tensors[0]:
        each = [own[name].detach() for own in tensors]
        if len({tensor.shape for tensor in each}) > 1:
            masks[name] = _stack([{name: torch.ones_like(tensor)} for tensor in each])[name]
    return masks


def _largest(tensors: Sequence[Tensor]) -> list[int]:
    return [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
