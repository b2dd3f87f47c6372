"""Probe width groups: run the graph, and the model's own code, with other widths on tensors without memory.

A symbol can look free and not be: an operator may need two widths to be equal, or one to be even, and no shape says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from dovetail.graph.attributes import SizeAttribute, set_attributes
from dovetail.graph.export import first_tensor, shadow
from dovetail.graph.flat import Flat
from dovetail.graph.groups import WidthGroup

__all__ = ["fake_run", "probe", "rehearsal"]


Attempt = Callable[[Mapping[sympy.Symbol, int]], str | None]
"""Runs something at some widths, the others as they are; what went wrong, or None."""


def probe(groups: tuple[WidthGroup, ...], attempt: Attempt) -> tuple[WidthGroup, ...]:
    """The groups, with those frozen that cannot change by themselves.

    All are changed at once, each by another amount, so that no requirement between two of them holds by chance. Where
    that fails, halves are tried, down to the groups at fault; what remains is tried together again.

    Args:
        groups: the groups; frozen ones are left alone.
        attempt: `fake_run` of the graph, or `rehearsal` of the model's own code.
    """
    free = [group for group in groups if group.frozen is None]
    if not free:
        return groups
    if (fault := attempt({})) is not None:
        return tuple(_freeze(group, f"it cannot be probed: {fault}") for group in groups)
    amounts = {group.symbol: group.base + group.multiple_of * (i + 1) for i, group in enumerate(free)}

    def changed(some: Sequence[WidthGroup]) -> str | None:
        return attempt({group.symbol: amounts[group.symbol] for group in some})

    failed = dict(_faults(free, changed))
    passed = [group for group in free if group.name not in failed]
    if failed and (fault := changed(passed)) is not None:
        failed |= {group.name: fault for group in passed}
    return tuple(_freeze(group, failed[group.name]) if group.name in failed else group for group in groups)


def _freeze(group: WidthGroup, reason: str) -> WidthGroup:
    return group if group.frozen is not None else dataclasses.replace(group, frozen=reason)


def _faults(
    groups: Sequence[WidthGroup], changed: Callable[[Sequence[WidthGroup]], str | None]
) -> Iterator[tuple[str, str]]:
    fault = changed(groups)
    if fault is None:
        return
    if len(groups) == 1:
        yield groups[0].name, f"the model does not run when it changes alone: {fault}"
        return
    middle = len(groups) // 2
    yield from _faults(groups[:middle], changed)
    yield from _faults(groups[middle:], changed)


def fake_run(flat: Flat, widths: Mapping[sympy.Symbol, int]) -> str | None:
    """Run a graph at some widths on tensors without memory; what went wrong, or None.

    Every result must have the shape that the graph's symbols give it.

    Args:
        flat: the graph.
        widths: values of some symbols; others keep theirs.
    """
    values = {**flat.bindings, **widths}
    module = flat.module
    sizes = [int(size.xreplace(values)) for size in flat.sizes.values()]
    environment: dict[fx.Node, Any] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "output":
                return None
            try:
                expected = _values(flat.shapes[node.name], values) if node.name in flat.shapes else None
            except ZeroDivisionError:
                return f"{node.name} would have a size that is divided by zero"
            if expected is not None and any(size != int(size) for size in expected):
                return f"{node.name} would have a size that is not whole"
            if node.op == "placeholder":
                assert expected is not None, "inputs of an exported graph are tensors"
                environment[node] = torch.empty(expected, dtype=flat.dtypes[node.name])
            elif node.op == "get_attr":
                name = str(node.target)
                is_size = name.startswith("size_")
                environment[node] = sizes[int(name.removeprefix("size_"))] if is_size else getattr(module, name)
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), environment.__getitem__)
                try:
                    environment[node] = node.target(*args, **kwargs)
                except Exception as error:  # whatever an operator raises is why the widths do not fit it
                    return f"{node.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
                result = environment[node]
                if expected is not None and isinstance(result, Tensor) and tuple(result.shape) != expected:
                    return f"{node.name} has shape {tuple(result.shape)} where {expected} was expected"
    return None


def rehearsal(
    model: nn.Module,
    flat: Flat,
    attributes: Sequence[SizeAttribute],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Attempt:
    """An attempt that runs the model's own code: it may ask for more than the operators that it came down to.

    A module may check its sizes, or keep a number that follows no width. Where the code does not run on tensors without
    memory even as it is, nothing is asked of it.

    Args:
        model: the model; it is not changed.
        flat: its graph, in the symbols of its groups.
        attributes: the numbers its modules hold that follow the widths.
        inputs, kwargs: example inputs.
    """
    copied = shadow(model)

    def run(widths: Mapping[sympy.Symbol, int]) -> tuple[str | None, tuple[int, ...]]:
        values = {**flat.bindings, **widths}
        set_attributes(copied, attributes, lambda size: int(size.xreplace(values)))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
            tensors = {name: _like(t, _values(flat.tensor_shape(name), values)) for name, t in _named(copied, flat)}
            given, keywords = tree_map_only(Tensor, lambda t: _like(t, tuple(t.shape)), (inputs, dict(kwargs)))
            try:
                output = torch.func.functional_call(copied, tensors, given, keywords)
                return None, tuple(first_tensor(output).shape)
            except Exception as error:  # whatever the model raises is why the widths do not fit it
                return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, ()

    as_it_is = cache(partial(run, {}))

    def attempt(widths: Mapping[sympy.Symbol, int]) -> str | None:
        fault, shape = as_it_is()
        if fault is not None or not widths:
            return None
        found, changed = run(widths)
        if found is None and changed != shape:
            return f"its output has shape {changed} where {shape} was expected"
        return found

    return attempt


def _named(model: nn.Module, flat: Flat) -> Iterator[tuple[str, Tensor]]:
    known = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return ((name, known[name]) for name in flat.tensor_names)


def _like(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor without memory; gradients are wanted, for then modules take their plain path, with their checks."""
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device, requires_grad=tensor.is_floating_point())


def _values(shape: Sequence[sympy.Expr], values: Mapping[sympy.Symbol, int]) -> tuple[Any, ...]:
    exact = (size.xreplace(values) if size.free_symbols else size for size in shape)
    return tuple(int(value) if value == int(value) else value for value in exact)
