"""A graph as a flat list of steps on numbered slots: what the memoised interpreter runs.

Rounding is made explicit: between an operation and each of its operands that is a site stands a `Round` step, which the
interpreter skips where a plan gives the site no format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from dovetail.graph import Graph, Operation
from dovetail.graph.kinds import tensor_arguments
from dovetail.plan import Site, SiteKind

__all__ = ["Program", "Step", "compile_program"]

# Operands of an operation that no format applies to.
_NO_DATA = frozenset({"running_mean", "running_var", "attn_mask", "mask", "indices", "index"})

# Operators whose result never shares memory with an operand. Others (views, `contiguous`, `dropout`) may.
_ALLOCATING = frozenset(
    """linear conv1d conv2d conv3d convolution batch_norm layer_norm group_norm instance_norm relu relu6 leaky_relu elu
    gelu silu sigmoid tanh hardswish hardsigmoid hardtanh softplus mish add sub mul div matmul mm bmm addmm softmax
    log_softmax max_pool1d max_pool2d avg_pool1d avg_pool2d mean sum cat scaled_dot_product_attention exp sqrt rsqrt pow
    neg sym_size embedding""".split()  # noqa: SIM905 - a table of names reads better as one
)


def _add_in_place(x: Tensor, y: Any, **kwargs: Any) -> Tensor:
    """`x + y`, in x where the result has x's shape, dtype and layout."""
    if isinstance(y, Tensor) and (x.shape, x.stride(), x.dtype) == (y.shape, y.stride(), y.dtype):
        return x.add_(y, **kwargs)
    return torch.add(x, y, **kwargs)


def _batch_norm_in_place(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Batch norm with given statistics, in x on CPUs: there the operator runs this very kernel."""
    arguments = (x, weight, bias, mean, variance, training, momentum, eps)
    if training or mean is None or x.device.type != "cpu":
        return torch.batch_norm(*arguments, cudnn_enabled)
    nothing = x.new_empty(0)
    torch.ops.aten.native_batch_norm.out(*arguments, out=x, save_mean=nothing, save_invstd=nothing)
    return x


# The same operator writing into its first operand, to the bit the same result.
_IN_PLACE: Mapping[Any, Any] = {
    torch.ops.aten.relu.default: torch.ops.aten.relu_.default,
    torch.ops.aten.relu6.default: torch.ops.aten.relu6_.default,
    torch.ops.aten.sigmoid.default: torch.ops.aten.sigmoid_.default,
    torch.ops.aten.silu.default: torch.ops.aten.silu_.default,
    torch.ops.aten.tanh.default: torch.ops.aten.tanh_.default,
    torch.ops.aten.hardswish.default: torch.ops.aten.hardswish_.default,
    torch.ops.aten.hardtanh.default: torch.ops.aten.hardtanh_.default,
    torch.ops.aten.leaky_relu.default: torch.ops.aten.leaky_relu_.default,
    torch.ops.aten.add.Tensor: _add_in_place,
    torch.ops.aten.batch_norm.default: _batch_norm_in_place,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a step reads a value, inside its arguments."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One computation.

    Args:
        index: position in the program.
        out: the slot it fills.
        reads: the slots it needs, each once.
        site: for a rounding step, the number of its site in `Program.sites`; -1 for an operator.
        target: the operator; None for a rounding step.
        in_place: the operator's twin that writes into its first operand, or None.
        args, kwargs: its arguments, with `Slot` in the place of values.
        is_flat: whether no slot is nested inside a list.
        is_static: whether the result depends on the model's tensors alone, not on the inputs.
        is_fresh: whether the result has memory of its own that no view of it can outlive, so that the last step to
            read it may overwrite it.
        bytes_per_sample: size of the result per sample, 0 for a static one and a view.
    """

    index: int
    out: int
    reads: tuple[int, ...]
    site: int
    target: Callable[..., Any] | None
    in_place: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_flat: bool
    is_static: bool
    is_fresh: bool
    bytes_per_sample: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Steps in an order that can be run.

    Args:
        steps: the steps.
        num_slots: slots are numbered from 0.
        tensors: (slot, name) of the model's parameters and buffers.
        constants: (slot, value) of tensors that the graph itself holds.
        sizes: (slot, size) of integers that follow the widths and are no tensor's own (heads of attention), in the
            graph's symbols.
        inputs: slots of the model's inputs, in order.
        output: the slot of the result.
        sites: number of each site, in the order in which they are rounded.
    """

    steps: tuple[Step, ...]
    num_slots: int
    tensors: tuple[tuple[int, str], ...]
    constants: tuple[tuple[int, Tensor], ...]
    sizes: tuple[tuple[int, sympy.Expr], ...]
    inputs: tuple[int, ...]
    output: int
    sites: Mapping[Site, int]

    @property
    def largest_bytes_per_sample(self) -> float:
        """Size of the largest intermediate value, per sample."""
        return max((step.bytes_per_sample for step in self.steps), default=0.0)


@dataclass(slots=True, kw_only=True)
class _Draft:
    out: int
    reads: tuple[int, ...]
    site: int
    node: fx.Node
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None


def compile_program(graph: Graph, device: torch.device | str = "cpu") -> Program:
    """The program of a graph.

    Args:
        graph: as `dovetail.graph.trace` gives it.
        device: where it will run: operators that create tensors are told so.
    """
    return _Compiler(graph, torch.device(device)).program()


class _Compiler:
    def __init__(self, graph: Graph, device: torch.device):
        self.graph = graph
        self.device = device
        self.operations = {operation.node: operation for operation in graph.operations}
        self.slots: dict[fx.Node, int] = {}
        self.num_slots = 0
        self.sites: dict[Site, int] = {}
        self.drafts: list[_Draft] = []
        self.tensors: list[tuple[int, str]] = []
        self.constants: list[tuple[int, Tensor]] = []
        self.sizes: list[tuple[int, sympy.Expr]] = []
        self.inputs: list[int] = []
        self.output = -1

    def program(self) -> Program:
        names = iter(self.graph.tensor_names)
        sizes = {f"size_{i}": size for i, size in enumerate(self.graph.sizes.values())}
        self.parameters: dict[fx.Node, str] = {}
        for node in self.graph.module.graph.nodes:
            match node.op:
                case "placeholder":
                    slot = self._new_slot(node)
                    if (name := next(names, None)) is None:
                        self.inputs.append(slot)
                    else:
                        self.tensors.append((slot, name))
                        self.parameters[node] = name
                case "get_attr" if node.target in sizes:
                    self.sizes.append((self._new_slot(node), sizes[node.target]))
                case "get_attr":
                    value = self.graph.module.get_buffer(str(node.target))
                    self.constants.append((self._new_slot(node), value.to(self.device)))
                case "call_function":
                    self._call(node)
                case "output":
                    self.output = self.slots[node.args[0][0]]
        return Program(
            steps=self._finish(),
            num_slots=self.num_slots,
            tensors=tuple(self.tensors),
            constants=tuple(self.constants),
            sizes=tuple(self.sizes),
            inputs=tuple(self.inputs),
            output=self.output,
            sites=self.sites,
        )

    def _new_slot(self, node: fx.Node | None = None) -> int:
        slot, self.num_slots = self.num_slots, self.num_slots + 1
        if node is not None:
            self.slots[node] = slot
        return slot

    def _call(self, node: fx.Node) -> None:
        operands = self._rounded_operands(node)
        reads: dict[int, None] = {}

        def place(value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            slot = operands.get(value, self.slots[value])
            reads[slot] = None
            return Slot(slot)

        args: Any = fx.node.map_aggregate(node.args, place)
        kwargs: Any = fx.node.map_aggregate(dict(node.kwargs), place)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": self.device}
        out = self._new_slot(node)
        self.drafts.append(_Draft(out=out, reads=tuple(reads), site=-1, node=node, args=tuple(args), kwargs=kwargs))

    def _rounded_operands(self, node: fx.Node) -> dict[fx.Node, int]:
        """Insert the rounding steps before an operation; operand -> the slot of its rounded value."""
        operation = self.operations.get(node.name)
        found: dict[fx.Node, int] = {}
        if operation is None or not operation.sites:
            return found
        kinds = {
            source: kind
            for argument, source in tensor_arguments(node).items()
            if (kind := self._kind(operation, argument, source)) in operation.sites
        }
        for kind in operation.sites:  # data, weight, bias: in the order of plans the last vary fastest
            for source in (source for source, its in kinds.items() if its == kind):
                site = self.sites.setdefault(Site(operation.name, kind), len(self.sites))
                found[source] = self._new_slot()
                self.drafts.append(_Draft(out=found[source], reads=(self.slots[source],), site=site, node=source))
        return found

    def _kind(self, operation: Operation, argument: str, source: fx.Node) -> SiteKind | None:
        argument = argument.partition(".")[0]
        name = self.parameters.get(source)
        if name is not None and name in (operation.weight, operation.bias):
            return SiteKind.WEIGHT if name == operation.weight else SiteKind.BIAS
        if name in self.graph.parameters:
            return None
        dtype = self.graph.dtypes.get(source.name, torch.int64)
        return SiteKind.DATA_IN if argument not in _NO_DATA and dtype.is_floating_point else None

    def _finish(self) -> tuple[Step, ...]:
        """Drafts in an order that can be run, with what depends on the whole program."""
        static = {slot for slot, _ in (*self.tensors, *self.constants, *self.sizes)}
        exposed = self._exposed_slots()
        steps = []
        for index, draft in enumerate(self.drafts):
            is_static = all(slot in static for slot in draft.reads)
            if is_static:
                static.add(draft.out)
            target = None if draft.site >= 0 else draft.node.target
            values = (*draft.args, *(draft.kwargs or {}).values())
            steps.append(
                Step(
                    index=index,
                    out=draft.out,
                    reads=draft.reads,
                    site=draft.site,
                    target=target,  # type: ignore[arg-type]
                    in_place=_IN_PLACE.get(target) if draft.args and isinstance(draft.args[0], Slot) else None,
                    args=draft.args,
                    kwargs=draft.kwargs or {},
                    is_flat=not any(isinstance(value, (list, tuple, slice, dict)) for value in values),
                    is_static=is_static,
                    is_fresh=(
                        draft.reads[0] not in exposed
                        if draft.site >= 0
                        else draft.out not in exposed and _allocates(draft.node)
                    ),
                    bytes_per_sample=0.0 if is_static else self._bytes_per_sample(draft),
                )
            )
        return tuple(steps)

    def _exposed_slots(self) -> set[int]:
        """Slots whose value is read by an operator whose result may be a view of it, or is the program's result.

        A rounding step that a plan skips gives the very value it reads, and two that round alike give one value: all
        slots that round one slot are judged with it.
        """
        source = {draft.out: draft.reads[0] for draft in self.drafts if draft.site >= 0}
        exposed = {source.get(self.output, self.output)}
        for draft in self.drafts:
            if draft.site < 0 and not _allocates(draft.node):
                exposed |= {source.get(slot, slot) for slot in draft.reads}
        return exposed

    def _bytes_per_sample(self, draft: _Draft) -> float:
        shape = self.graph.shapes.get(draft.node.name)
        if shape is None or (draft.site < 0 and not _allocates(draft.node)):
            return 0.0
        count = 1.0
        for size in shape:
            count *= self._size(size)
        return count * self.graph.dtypes[draft.node.name].itemsize

    def _size(self, size: sympy.Expr) -> float:
        """A size for one sample; most are numbers or plain symbols, for which sympy's substitution is slow."""
        if size.is_Integer:
            return float(size)
        if size == self.graph.batch:
            return 1.0
        if size.is_Symbol:
            return float(self.graph.bindings[size])
        return float(size.subs({**self.graph.bindings, self.graph.batch: 1}))


def _allocates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.partition("::")[2] in _ALLOCATING
