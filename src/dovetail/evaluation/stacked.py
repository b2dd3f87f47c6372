"""Several small models as one: their parameters stacked, one batched operator for what each does alone.

Models of one architecture and different widths are padded with zeros to the widest. A padded channel's weights start
at zero and their gradients are masked, so they stay zero and no other channel sees them. Whether that holds for a
model's code (it does not where channels are averaged or normalised over) is tried on a batch, against the models one by
one, before any training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dovetail.data import Split
from dovetail.evaluation.training import cross_entropy, random_states, set_random_states

__all__ = ["CannotStackError", "Stack", "check_untouched"]

_PROBE = 16  # samples on which stacked and single models are compared
Tensors = dict[str, Tensor]


class CannotStackError(Exception):
    """These models cannot be trained side by side; train them one by one."""


class Stack:
    """Models of one architecture that compute as one; widths may differ.

    Args:
        models: Read, not changed.
        train: What they are to be trained on; the first samples are for the trial.

    Raises:
        CannotStackError: The models' code does not allow it.
    """

    def __init__(self, models: Sequence[nn.Module], train: Split) -> None:
        own: list[Tensors] = [dict(model.named_parameters()) for model in models]
        self.num_models = len(models)
        self._template = copy.deepcopy(models[0])
        self._parameters = {name: tensor.requires_grad_() for name, tensor in _stack(own).items()}
        self._buffers = _stack([dict(model.named_buffers()) for model in models])
        self._masks = _masks(own)
        self._probe(models, train)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The stacked parameters, each [models, ...]."""
        return tuple(self._parameters.values())

    def train(self, mode: bool) -> None:
        """As of `nn.Module`."""
        self._template.train(mode)

    def outputs(self, inputs: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """What each model computes from its own inputs: [models, samples, classes]."""
        stacked = tuple(torch.stack(tensors) for tensors in zip(*inputs, strict=True))
        return vmap(self._forward)(self._parameters, self._buffers, stacked)

    def outputs_alike(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """What each model computes from the same inputs: [models, samples, classes]."""
        return vmap(self._forward, in_dims=(0, 0, None))(self._parameters, self._buffers, inputs)

    def mask_gradients(self) -> None:
        """Keep padding at zero."""
        for name, mask in self._masks.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def copy_into(self, place: int, tensors: Mapping[str, Tensor]) -> None:
        """Write one model's parameters and buffers into tensors of its own shapes."""
        stacked = self._parameters | self._buffers
        for name, tensor in tensors.items():
            tensor.detach().copy_(stacked[name].detach()[place][tuple(slice(n) for n in tensor.shape)])

    def keep(self, places: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Go on with some of the models.

        Returns:
            For each parameter, what it was and what it is now.
        """
        rows = torch.tensor(places)
        before = self._parameters
        self._parameters = {n: t.detach()[rows].clone().requires_grad_() for n, t in before.items()}
        self._buffers = {n: t[rows].clone() for n, t in self._buffers.items()}
        self._masks = {n: t[rows] for n, t in self._masks.items()}
        self.num_models = len(places)
        return list(zip(before.values(), self._parameters.values(), strict=True))

    def _forward(self, parameters: Tensors, buffers: Tensors, inputs: tuple[Tensor, ...]) -> Tensor:
        return functional_call(self._template, (parameters, buffers), inputs)  # type: ignore[no-any-return]

    def _probe(self, models: Sequence[nn.Module], train: Split) -> None:
        """Compare losses and gradients on a batch, stacked and one by one, for the first and the last model."""
        rows = slice(min(_PROBE, len(train)))
        inputs, targets = tuple(tensor[rows] for tensor in train.inputs), train.targets[rows]
        count = len(models)
        buffers = {name: tensor.clone() for name, tensor in self._buffers.items()}
        states = random_states(train.targets.device)
        try:
            self._template.train()
            losses = cross_entropy(self.outputs([inputs] * count), targets.expand(count, -1)).mean(1)
            gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()), allow_unused=True)
            stacked: dict[str, Tensor | None] = dict(zip(self._parameters, gradients, strict=True))
            for place in {0, count - 1}:
                _compare(models[place], place, float(losses[place].detach()), stacked, inputs, targets)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise CannotStackError(str(error)) from error
        check_untouched(states, train.targets.device)
        self._buffers = buffers


def check_untouched(states: Sequence[Tensor], device: torch.device) -> None:
    """That no random numbers were drawn since the process's random states were these; else they are set back.

    Raises:
        CannotStackError: Some were.
    """
    if not all(map(torch.equal, states, random_states(device))):
        set_random_states(states, device)
        raise CannotStackError("the model draws random numbers")


def _compare(
    model: nn.Module,
    place: int,
    loss: float,
    stacked: Mapping[str, Tensor | None],
    inputs: tuple[Tensor, ...],
    targets: Tensor,
) -> None:
    """That a model has this loss alone, and these gradients.

    Raises:
        CannotStackError: It does not.
    """
    model = copy.deepcopy(model).train()
    parameters = {name: parameter.requires_grad_() for name, parameter in model.named_parameters()}
    alone = cross_entropy(model(*inputs), targets).mean()
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
