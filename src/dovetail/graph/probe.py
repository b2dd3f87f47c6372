"""Probe width groups: run the graph with other widths on tensors without memory, and require what the shapes promise.

A symbol can look free and not be: an operator may need two widths to be equal, or one to be even, and no shape says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from dovetail.graph.flat import Flat
from dovetail.graph.groups import WidthGroup

__all__ = ["fake_run", "probe"]


def probe(flat: Flat, groups: tuple[WidthGroup, ...]) -> tuple[WidthGroup, ...]:
    """The groups, with those frozen that cannot change by themselves.

    All are changed at once, each by another amount, so that no requirement between two of them holds by chance. Where
    that fails, halves are tried, down to the groups at fault; what remains is tried together again.

    Args:
        flat: the graph in the symbols of the groups.
        groups: the groups; frozen ones are left alone.
    """
    free = [group for group in groups if group.frozen is None]
    if not free:
        return groups
    if (fault := fake_run(flat, {})) is not None:
        return tuple(_freeze(group, f"the graph cannot be probed: {fault}") for group in groups)
    amounts = {group.name: group.base + group.multiple_of * (i + 1) for i, group in enumerate(free)}
    failed = dict(_faults(flat, free, amounts))
    passed = [group for group in free if group.name not in failed]
    if failed and (fault := _try(flat, passed, amounts)) is not None:
        failed |= {group.name: fault for group in passed}
    return tuple(_freeze(group, failed[group.name]) if group.name in failed else group for group in groups)


def _freeze(group: WidthGroup, reason: str) -> WidthGroup:
    return group if group.frozen is not None else dataclasses.replace(group, frozen=reason)


def _try(flat: Flat, groups: Sequence[WidthGroup], amounts: Mapping[str, int]) -> str | None:
    return fake_run(flat, {group.symbol: amounts[group.name] for group in groups})


def _faults(flat: Flat, groups: Sequence[WidthGroup], amounts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    fault = _try(flat, groups, amounts)
    if fault is None:
        return
    if len(groups) == 1:
        yield groups[0].name, f"the model does not run when it changes alone: {fault}"
        return
    middle = len(groups) // 2
    yield from _faults(flat, groups[:middle], amounts)
    yield from _faults(flat, groups[middle:], amounts)


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
            expected = _values(flat.shapes[node.name], values) if node.name in flat.shapes else None
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


def _values(shape: Sequence[sympy.Expr], values: Mapping[sympy.Symbol, int]) -> tuple[Any, ...]:
    exact = (size.xreplace(values) if size.free_symbols else size for size in shape)
    return tuple(int(value) if value == int(value) else value for value in exact)
