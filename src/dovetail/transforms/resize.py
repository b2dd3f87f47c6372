"""Resize a model: the same Python code on parameters of planned widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import sympy
from torch import Tensor, nn

from dovetail.errors import ResizeError, unknown_name
from dovetail.graph import Graph
from dovetail.graph.attributes import set_attributes
from dovetail.plan import Plan
from dovetail.transforms.importance import Importance, find_importance
from dovetail.transforms.inherit import inherit
from dovetail.transforms.initialise import initialise

__all__ = ["Inherit", "Weights", "resize"]


@dataclass(frozen=True, slots=True)
class Inherit:
    """A resized model takes the weights of the one it is made from.

    Args:
        importance: a name in `IMPORTANCE`, or a callable: which channels a shrinking group keeps.
    """

    importance: str | Importance = "l1"


Weights = Literal["inherit", "initialise"] | Inherit
"""Where a resized model's weights come from; "inherit" is `Inherit()`."""


def resize(
    graph: Graph,
    model: nn.Module,
    plan: Plan,
    *,
    weights: Weights = "inherit",
    seed: int = 0,
    share: bool = False,
) -> nn.Module:
    """A model of the user's own class whose width groups have the planned widths.

    It is a deep copy with parameters and buffers of new shapes in place of the old ones, and the size attributes of
    its modules brought into line. Everything else (`inplace`, hooks, mode, dtype, device, `requires_grad`, tied
    weights) is as it was. The model given is not changed.

    Args:
        graph: the model's graph.
        model: the model that the graph was traced from.
        plan: widths in channels per width group; what it does not name stays. Formats play no part here.
        weights: "inherit": growing copies channels and keeps the function where `inheritance_report` says so,
            shrinking keeps the most important channels, by L1 or by the ranking of `Inherit(ranking)`. "initialise":
            every parameter is drawn anew, see `initialise`.
        seed: for whatever is drawn. The global random state is neither used nor changed.
        share: let parameters that the plan leaves alone use the memory of the user's (they then do not require a
            gradient). For candidates that are only run, never trained.

    Returns:
        The resized model.

    Raises:
        UnknownSiteError, PlanError: The plan does not fit the graph.
        ResizeError: The model is not the one that the graph describes, or an option is not known.

    Example:
        >>> import torch
        >>> from dovetail.graph import trace
        >>> base = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> graph = trace(base, (torch.zeros(2, 4),))
        >>> resize(graph, base, Plan.of(widths={"0": 16}))
        Sequential(
          (0): Linear(in_features=4, out_features=16, bias=True)
          (1): ReLU()
          (2): Linear(in_features=16, out_features=2, bias=True)
        )
    """
    if not isinstance(weights, Inherit) and weights not in ("inherit", "initialise"):
        raise ResizeError(f"weights: {unknown_name('choice', str(weights), ['inherit', 'initialise'])}")
    if share and weights == "initialise":
        raise ResizeError("share: fresh weights have nothing to share with the base model; drop share or inherit.")
    graph.check(plan)
    tensors = named_tensors(graph, model)
    ranking = find_importance(weights.importance if isinstance(weights, Inherit) else "l1")
    replaced = inherit(graph, tensors, plan, importance=ranking, seed=seed)
    resized = _copy(model, {id(tensors[name]): tensor for name, tensor in replaced.items()}, share=share)
    if replaced:
        set_attributes(resized, graph.attributes, _evaluator(graph.widths(plan)))
    if weights == "initialise":
        initialise(resized, seed=seed)
    return resized


def named_tensors(graph: Graph, model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model under the graph's names.

    Raises:
        ResizeError: One is missing or has another shape than the traced model's.
    """
    found: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    value = _evaluator(graph.bindings)
    for name in graph.tensor_names:
        shape = tuple(value(size) for size in graph.tensor_shape(name))
        if name not in found:
            raise ResizeError(f"model: must be the one that was traced, but it has no tensor {name!r}.")
        if tuple(found[name].shape) != shape:
            raise ResizeError(
                f"model: must be the one that was traced, but {name!r} has shape {tuple(found[name].shape)} "
                f"instead of {shape}. Trace the resized model to resize it again."
            )
    return found


def _copy(model: nn.Module, replaced: Mapping[int, Tensor], *, share: bool) -> nn.Module:
    """A deep copy in which some tensors, given by identity, are others. Tied tensors stay tied."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        if id(parameter) in replaced:
            memo[id(parameter)] = _like(parameter, replaced[id(parameter)])
        elif share:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        if id(buffer) in replaced:
            memo[id(buffer)] = replaced[id(buffer)]
    return copy.deepcopy(model, memo)


def _like(parameter: nn.Parameter, value: Tensor) -> nn.Parameter:
    """A parameter with another value: class, attributes and requires_grad as they were."""
    made = nn.Parameter(value, requires_grad=parameter.requires_grad)
    made.__dict__.update(parameter.__dict__)
    return made


def _evaluator(widths: Mapping[sympy.Symbol, int]) -> Callable[[sympy.Expr], int]:
    """The value of a size; of the few sizes that a model has, each is worked out once."""
    return cache(lambda size: int(size.xreplace(widths)))
