"""Which calls of a model's code are made alike whatever the values of its inputs.

A call is known by how many of its kind came before it. Where the code branches or loops on values, the n-th call may be
another one on other data, and a format given to it would land elsewhere.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dovetail.graph.calls import Call, CallMode

__all__ = ["unsteady_calls"]

Kind = tuple[str, str]
"""Path and function of a call."""
Run = Mapping[Kind, Sequence[tuple[str, ...]]]
"""The calls of each kind in the order made, each with the names of the parameters that it is given."""


def unsteady_calls(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> frozenset[Kind]:
    """Kinds of call that differ in number, order or parameters between runs on the inputs and on variants of them.

    A module that a run leaves out altogether is no evidence against its calls.

    Args:
        model: the model in eval mode; it is run as a copy.
        inputs, kwargs: example inputs; the variants are one sample, and floating-point inputs negated, zero and random.
    """
    own = copy.deepcopy(model)
    runs = []
    for args, keywords in _variants(inputs, kwargs):
        with contextlib.suppress(Exception):  # a model may refuse made-up values, as its own code pleases
            runs.append(_run(own, args, keywords))
    ran = [{path for path, _ in run} for run in runs]
    kinds = {kind for run in runs for kind in run}
    return frozenset(
        kind
        for kind in kinds
        if len({tuple(run.get(kind, ())) for run, paths in zip(runs, ran, strict=True) if kind[0] in paths}) > 1
    )


def _run(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run:
    names = {id(p): name for name, p in model.named_parameters()}
    seen: dict[Kind, list[tuple[str, ...]]] = defaultdict(list)

    def note(call: Call, function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        given = (*args, *keywords.values())
        seen[call.path, call.function].append(tuple(names[id(value)] for value in given if id(value) in names))
        return function(*args, **keywords)

    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad(), CallMode(model, note):
        model(*inputs, **kwargs)
    return seen


def _variants(
    inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    drawn = torch.Generator().manual_seed(0)
    changes: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: x,
        lambda x: x[:1] if x.ndim > 0 else x,
        lambda x: -x if x.is_floating_point() else x,
        lambda x: torch.zeros_like(x) if x.is_floating_point() else x,
        lambda x: torch.randn(x.shape, generator=drawn).to(x) if x.is_floating_point() else x,
    )
    for change in changes:

        def changed(value: Any, change: Callable[[Tensor], Tensor] = change) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        yield tuple(map(changed, inputs)), {name: changed(value) for name, value in kwargs.items()}
