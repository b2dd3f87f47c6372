"""The graph: a read-only view of a model as operations, symbolic shapes, sites and width groups."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import sympy
import torch
from torch import Tensor, fx

from dovetail.errors import PlanError, TraceError, UnknownSiteError, unknown_name
from dovetail.graph.attributes import SizeAttribute
from dovetail.graph.groups import WidthGroup
from dovetail.graph.operation import Operation
from dovetail.plan import Plan, Site

__all__ = ["Graph", "Shape"]

Shape = tuple[sympy.Expr, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A model as a function of its tensors, with symbolic shapes. Build one with `dovetail.graph.trace`.

    Args:
        module: `f(*tensors in the order of tensor_names, *inputs)`, in eval mode, on aten operators; gives a tuple: the
            tensor that is scored, then the model's other results (the boxes beside the classes).
        operations: everything the model computes, in order.
        groups: width groups, in the order of their producers.
        parameters: symbolic shape of each parameter; tied ones appear once, under their first name.
        buffers: symbolic shape of each buffer.
        shapes: symbolic shape of each node of the module that is a tensor.
        dtypes: dtype of each such node.
        bindings: value of each symbol in the model as it is; of the batch, in the example.
        batch: the symbol of the batch.
        tensor_names: parameters and buffers, in the order of the module's inputs.
        num_inputs: how many inputs the model takes after them.
        sizes: sizes that are no tensor's own (heads of attention); the module holds the i-th as its integer `size_i`.
        attributes: integer attributes of the model's modules that follow the widths.
        obstacle: why the model cannot be exported, or None. With one, the graph is the record of a run on the example
            inputs: it says what that run computed, and other data may take another path.
    """

    module: fx.GraphModule
    operations: tuple[Operation, ...]
    groups: tuple[WidthGroup, ...]
    parameters: Mapping[str, Shape]
    buffers: Mapping[str, Shape]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, torch.dtype]
    bindings: Mapping[sympy.Symbol, int]
    batch: sympy.Symbol
    tensor_names: tuple[str, ...]
    num_inputs: int
    sizes: Mapping[str, sympy.Expr]
    attributes: tuple[SizeAttribute, ...]
    obstacle: str | None = None

    @property
    def is_replayable(self) -> bool:
        """Whether the graph may stand in for the model on any data."""
        return self.obstacle is None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the graph before trusting figures that follow from it."""
        if self.obstacle is None:
            return ()
        return (
            f"{self.obstacle} Until then: widths stay as they are; costs are those of the path that the code takes on "
            "the example inputs; formats act on calls that it makes alike on other inputs, and candidates are scored "
            "by running it.",
        )

    @cached_property
    def _operations(self) -> dict[str, Operation]:
        return {operation.name: operation for operation in self.operations}

    @cached_property
    def _groups(self) -> dict[str, WidthGroup]:
        return {group.name: group for group in self.groups}

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.module.graph.nodes}

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site of every operation, in order."""
        return tuple(site for operation in self.operations for site in operation.all_sites)

    def operation(self, name: str) -> Operation:
        """The operation of this name.

        Raises:
            UnknownSiteError: There is none; the message lists near names.
        """
        if name not in self._operations:
            raise UnknownSiteError(unknown_name("operation", name, self._operations))
        return self._operations[name]

    def group(self, name: str) -> WidthGroup:
        """The width group of this name.

        Raises:
            UnknownSiteError: There is none; the message lists near names.
        """
        if name not in self._groups:
            raise UnknownSiteError(unknown_name("width group", name, self._groups))
        return self._groups[name]

    def node(self, name: str) -> fx.Node:
        """The node of this name in the graph's module."""
        return self._nodes[name]

    def node_shape(self, node: fx.Node | str) -> Shape:
        """Symbolic shape of what a node gives (of its first tensor, where it gives several)."""
        return self.shapes[node if isinstance(node, str) else node.name]

    def tensor_shape(self, name: str) -> Shape:
        """Symbolic shape of a parameter or buffer."""
        return self.parameters[name] if name in self.parameters else self.buffers[name]

    def select(self, pattern: str) -> tuple[Operation, ...]:
        """Operations of a type; else those whose name is, or as a glob matches, the pattern; in order.

        Where there are none, dots in names may be written as underscores, as other tools of this line do.
        """
        if typed := tuple(operation for operation in self.operations if operation.type == pattern):
            return typed
        return _matching(self.operations, pattern)

    def select_groups(self, pattern: str) -> tuple[WidthGroup, ...]:
        """Width groups whose name is, or as a glob matches, the pattern, frozen ones too; in order.

        Where there are none, dots in names may be written as underscores, as for `select`.
        """
        return _matching(self.groups, pattern)

    def widths(self, plan: Plan = Plan()) -> dict[sympy.Symbol, int]:  # noqa: B008 - a frozen value
        """The value of each symbol under a plan.

        Raises:
            UnknownSiteError, PlanError: As for `check`.
        """
        self.check(plan)
        return {**self.bindings, **{self.group(name).symbol: width for name, width in plan.widths}}

    def at(self, plan: Plan) -> Graph:
        """The same graph with the sizes that are no tensor's own (heads of attention) as a plan has them.

        Graphs without attention run with tensors of any widths as they are; those with attention need this first where
        a plan changes the number or width of heads.
        """
        widths = self.widths(plan)
        module = copy.copy(self.module)
        for i, size in enumerate(self.sizes.values()):
            setattr(module, f"size_{i}", int(size.xreplace(widths)))
        return dataclasses.replace(self, module=module)

    def check(self, plan: Plan) -> None:
        """Require that a plan fits this graph.

        Raises:
            UnknownSiteError: It names a site or group that is not here.
            PlanError: It changes a frozen group, or a width is not the multiple that its group requires.
        """
        for site, _ in plan.formats:
            operation = self.operation(site.operation)
            if site.kind not in operation.sites:
                has = ", ".join(operation.sites) or f"no sites: {operation.no_sites}"
                raise UnknownSiteError(
                    f"operation {site.operation!r} ({operation.type}) has no {site.kind}; it has {has}."
                )
        for name, width in plan.widths:
            group = self.group(name)
            if group.frozen is not None and width != group.base:
                raise PlanError(
                    f"width group {name!r} must keep its {group.base} channels, got {width}: {group.frozen}."
                )
            if width % group.multiple_of:
                below = width // group.multiple_of * group.multiple_of
                near = " or ".join(str(w) for w in (below, below + group.multiple_of) if w)
                raise PlanError(
                    f"width group {name!r} must be a multiple of {group.multiple_of}, got {width}. "
                    f"Nearest allowed: {near}."
                )

    def run(self, tensors: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """The model's first result in eval mode with these tensors, which may have any planned widths.

        Plain interpretation, node by node: the reference for everything faster.

        Args:
            tensors: every tensor of `tensor_names`, such as a resized model's `named_parameters` and `named_buffers`.
            inputs: the model's inputs, keyword inputs after positional ones.

        Raises:
            PlanError: A tensor is missing.
            TraceError: The graph is the record of a run.
        """
        if self.obstacle is not None:
            raise TraceError(f"graph.run: a recorded graph must not be run; run the model itself. {self.obstacle}")
        if missing := [name for name in self.tensor_names if name not in tensors]:
            raise PlanError(f"graph.run: tensors must hold every parameter and buffer, {missing[0]!r} is missing.")
        values = (*(tensors[name] for name in self.tensor_names), *inputs)
        results: tuple[Tensor, ...] = fx.Interpreter(self.module).run(*values, enable_io_processing=False)
        return results[0]


Named = TypeVar("Named", Operation, WidthGroup)


def _matching(known: tuple[Named, ...], pattern: str) -> tuple[Named, ...]:
    """Those whose name is, or as a glob matches, the pattern; where none does, names with underscores for dots."""
    for spell in (str, lambda name: name.replace(".", "_")):
        if found := tuple(one for one in known if fnmatch.fnmatchcase(spell(one.name), pattern)):
            return found
    return tuple(one for one in known if one.name == pattern)
