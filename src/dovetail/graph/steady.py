"""Which calls of a model's code are made alike whenever it runs.

A call is known by how many of its kind came before it. Where the code branches or loops on values, or asks whether it
is being exported, the n-th call may be another one, and a format given to it would land elsewhere.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dovetail.graph.calls import Call, CallMode
from dovetail.graph.operation import Operation

__all__ = ["Calls", "Kind", "differing_calls", "note_call", "unsteady_calls", "without_sites"]

Kind = tuple[str, str]
"""Path and function of a call."""
Calls = dict[Kind, list[tuple[str, ...]]]
"""The calls of each kind in the order made, each with the names of the parameters that it is given."""


def note_call(
    calls: Calls, names: Mapping[int, str], call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Write a call down.

    Args:
        calls: where.
        names: of parameters, by identity.
        call, args, kwargs: the call.
    """
    given = (*args, *kwargs.values())
    calls.setdefault((call.path, call.function), []).append(
        tuple(names[id(value)] for value in given if id(value) in names)
    )


def differing_calls(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], exported: Calls
) -> frozenset[Kind]:
    """Kinds of call that the model's code makes otherwise when it runs than it did for the exporter.

    Args:
        model: in eval mode; it is run once.
        inputs, kwargs: example inputs.
        exported: the calls made for the exporter.
    """
    plain = _run(model, inputs, kwargs)
    return frozenset(kind for kind in plain.keys() | exported.keys() if plain.get(kind) != exported.get(kind))


def without_sites(operations: tuple[Operation, ...], kinds: frozenset[Kind], why: str) -> tuple[Operation, ...]:
    """The operations, those of some kinds of call without sites."""
    return tuple(
        dataclasses.replace(operation, sites=(), call=None, no_sites=why)
        if operation.call is not None and operation.sites and (operation.call.path, operation.call.function) in kinds
        else operation
        for operation in operations
    )


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


def _run(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Calls:
    names = {id(p): name for name, p in model.named_parameters()}
    seen: Calls = {}

    def note(call: Call, function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        note_call(seen, names, call, args, keywords)
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
