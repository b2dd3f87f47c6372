"""Which models are trained side by side, and which of those compute as one.

All of it follows from the models and the batch size, so that a model's company does not depend on the machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.evaluation.training import keep_random_state

__all__ = ["alike", "kept_bytes", "share_out", "size_classes", "step_cost"]

MOST_STACKED = 16
"""Models that compute as one: more gains little, and what they keep for the backward pass outgrows the caches."""

# What one model adds to a training step of several, in FLOPs of that time (100 GFLOP/s), fitted to steps of
# jsc-three-linear at 5 widths and batches of 64 and 512 on one core. Run as it is: ALONE_STEP + its arithmetic.
ALONE_STEP = 20e6
# Those that compute as one: STACK_STEP + for each (STACKED_MODEL + STACKED_WORK x the arithmetic of the padded model).
STACK_STEP = 70e6
STACKED_MODEL = 4e6
STACKED_WORK = 1.3

Shapes = Sequence[Sequence[int]]


def alike(models: Sequence[nn.Module]) -> list[list[int]]:
    """Indices of models of one architecture and, where they are quantised, of the same formats."""
    groups: list[list[int]] = []
    architectures: list[tuple[object, ...]] = []
    for index, model in enumerate(models):
        architecture = _architecture(model)
        if architecture in architectures:
            groups[architectures.index(architecture)].append(index)
        else:
            architectures.append(architecture)
            groups.append([index])
    return groups


def _architecture(model: nn.Module) -> tuple[object, ...]:
    layers = tuple(type(module) for module in model.modules())
    tensors = tuple((name, parameter.ndim) for name, parameter in model.named_parameters())
    return layers, tensors, getattr(model, "formats", None)


def size_classes(sizes: Sequence[Shapes], batch_size: int) -> list[list[int]]:
    """Which models compute as one, so that a step of all takes least time: the models in order of size, cut into runs.

    Args:
        sizes: For each model the shapes of its parameters.
        batch_size: Samples per step.

    Returns:
        Indices by class, the largest models first.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-_elements(sizes[i]), i))
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first so many models: least cost, start of the last run
    for end in range(1, len(order) + 1):
        runs = (
            (best[start][0] + step_cost([sizes[i] for i in order[start:end]], batch_size), start)
            for start in range(max(0, end - MOST_STACKED), end)
        )
        best.append(min(runs))
    classes: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        classes.insert(0, order[start:end])
        end = start
    return classes


def step_cost(sizes: Sequence[Shapes], batch_size: int) -> float:
    """What models that compute as one add to a training step, in FLOPs of that time.

    An element of a parameter costs 6 FLOPs a sample, forward and backward.
    """
    if len(sizes) == 1:
        return ALONE_STEP + 6 * batch_size * _elements(sizes[0])
    padded = [[max(dims) for dims in zip(*shapes, strict=True)] for shapes in zip(*sizes, strict=True)]
    return STACK_STEP + len(sizes) * (STACKED_MODEL + STACKED_WORK * 6 * batch_size * _elements(padded))


def _elements(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)


def share_out(costs: Sequence[float], kept: Sequence[float], room: float, groups: int) -> list[list[int]]:
    """Items in groups of like cost, none with more than there is room for unless it is of one item.

    The costliest first, each to the cheapest group that has room for it; a new one where none has.

    Args:
        costs: Of each item.
        kept: What each takes of the room in its group.
        room: Of each group.
        groups: As many, or more where room is wanted.

    Returns:
        Indices by group, the costliest group first.
    """
    found: list[list[int]] = [[] for _ in range(groups)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        fitting = [g for g in found if not g or sum(kept[i] for i in g) + kept[item] <= room]
        if not fitting:
            found.append([item])
            continue
        min(fitting, key=lambda g: sum(costs[i] for i in g)).append(item)
    return sorted((g for g in found if g), key=lambda g: -sum(costs[i] for i in g))


def kept_bytes(model: nn.Module, train: Split) -> float:
    """What a model keeps of one sample for its backward pass; found out on two samples.

    Returns:
        Bytes; infinite where the model does not run: it will say why when it is trained.
    """
    copied = copy.deepcopy(model).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in copied.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = tuple(tensor[:2].clone() for tensor in train.inputs)  # a view would count all samples
    with keep_random_state(train.targets.device), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            outputs = copied(*inputs)
        except Exception:  # the user's code may raise anything
            return math.inf
    del outputs  # what is kept lives as long as they do
    return sum(found.values()) / len(inputs[0])
