"""The exported program as one flat graph: tensors and inputs in, tensors out, nothing but computation between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from dovetail.graph.calls import Call
from dovetail.graph.export import CALL_KEY, Exported, expression
from dovetail.graph.functional import functionalise

__all__ = ["Flat", "Shape", "flatten_program", "results"]

Shape = tuple[sympy.Expr, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat:
    """An exported graph with its facts beside it.

    Args:
        module: `f(*tensors, *inputs)`; a tuple out: the tensor that is scored, then the model's other results.
        tensor_names: parameters and buffers, in the order of the module's inputs.
        parameters: those of them that are parameters.
        num_inputs: how many inputs come after them.
        sizes: sizes that are no tensor's own (heads of attention), in order; the module holds them as integers
            `size_0`, ...
        equations: pairs of sizes that the exporter found equal but did not make one.
        pinned: by (tensor, dimension): the line of the model that made a size a constant, where one is known.
        shapes: symbolic shape of each node that is a tensor.
        dtypes: dtype of each such node.
        scalars: value of each node that is a size.
        calls: the call that each node comes from, where known.
        lines: the line of the model's code that each node comes from, as a traceback.
        bindings: value of each symbol in the model as it is.
        batch: the symbol of the batch.
    """

    module: fx.GraphModule
    tensor_names: tuple[str, ...]
    parameters: frozenset[str]
    num_inputs: int
    sizes: Mapping[str, sympy.Expr]
    equations: tuple[tuple[sympy.Expr, sympy.Expr], ...]
    pinned: Mapping[tuple[str, int], str]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, torch.dtype]
    scalars: Mapping[str, sympy.Expr]
    calls: Mapping[str, Call]
    lines: Mapping[str, str]
    bindings: Mapping[sympy.Symbol, int]
    batch: sympy.Symbol

    @cached_property
    def placeholders(self) -> dict[str, fx.Node]:
        """The node of each parameter and buffer."""
        nodes = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        return dict(zip(self.tensor_names, nodes, strict=False))

    def tensor_shape(self, name: str) -> Shape:
        """Symbolic shape of a parameter or buffer."""
        return self.shapes[self.placeholders[name].name]


def flatten_program(exported: Exported, model: nn.Module) -> Flat:
    """Read a flat graph off an exported program.

    Args:
        exported: what the exporter gave.
        model: the model that was exported.
    """
    program = exported.program
    module = fx.GraphModule({}, fx.Graph())
    graph, copied = module.graph, dict[fx.Node, fx.Node]()
    constants = {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT
    }
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, torch.dtype] = {}
    scalars: dict[str, sympy.Expr] = {}
    calls: dict[str, Call] = {}
    lines: dict[str, str] = {}
    sizes = _size_nodes(exported)
    size_shapes = {}
    for i, name in enumerate(exported.sizes):
        (node,) = [n for n, attribute in sizes.items() if attribute == f"size_{i}" and n.op == "placeholder"]
        size_shapes[name] = expression(node.meta["val"].shape[0])
        setattr(module, f"size_{i}", int(size_shapes[name].xreplace(exported.bindings)))
    graph.owning_module = None  # else it warns that an attribute is an integer
    for node in program.graph.nodes:
        if node in sizes and node.op == "placeholder":
            continue
        if node in sizes:
            copied[node] = graph.get_attr(sizes[node])
        elif node.name in constants:
            target = "constant_" + str(constants[node.name]).replace(".", "_")
            module.register_buffer(target, program.constants[str(constants[node.name])])
            copied[node] = graph.get_attr(target)
        elif node.op == "output":
            graph.output(tuple(copied[result] for result in results(node)))
            continue
        elif _is_assertion(node):
            continue
        else:
            copied[node] = graph.node_copy(node, lambda n: copied[n])
        new, value = copied[node], node.meta.get("val")
        new.meta = {}
        first = value[0] if isinstance(value, (tuple, list)) and value else value
        if isinstance(first, Tensor):
            shapes[new.name] = tuple(expression(size) for size in first.shape)
            dtypes[new.name] = first.dtype
        elif isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
            scalars[new.name] = expression(value)
        if text := node.meta.get("custom", {}).get(CALL_KEY):
            calls[new.name] = Call.parse(text)
        if line := node.meta.get("stack_trace"):
            lines[new.name] = line
    functionalise(module)
    graph.eliminate_dead_code()
    module.recompile()
    inputs = [node for node in graph.nodes if node.op == "placeholder"][len(exported.names) :]
    return Flat(
        module=module,
        tensor_names=exported.names,
        parameters=frozenset(dict(model.named_parameters())),
        num_inputs=len(inputs),
        sizes=size_shapes,
        equations=exported.equations,
        pinned=exported.pinned,
        shapes=shapes,
        dtypes=dtypes,
        scalars=scalars,
        calls=calls,
        lines=lines,
        bindings=exported.bindings,
        batch=_batch(shapes, inputs),
    )


def _size_nodes(exported: Exported) -> dict[fx.Node, str]:
    """The inputs that are sizes and the nodes that read them, with the attribute that takes their place."""
    given = {s.arg.name for s in exported.program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT}
    nodes = [node for node in exported.program.graph.nodes if node.op == "placeholder" and node.name in given]
    first = len(exported.names)
    found: dict[fx.Node, str] = {}
    for i, node in enumerate(nodes[first : first + len(exported.sizes)]):
        found |= dict.fromkeys((node, *node.users), f"size_{i}")
    return found


def results(output: fx.Node) -> list[fx.Node]:
    """What a model's output node gives: the tensor that is scored, then every other result of its own.

    A second head is one; keys and values that are cached on the way to the first are not.
    """
    first, *others = output.all_input_nodes
    return [first, *(node for node in others if len(node.users) == 1)]


def _is_assertion(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.startswith("aten::_assert")


def _batch(shapes: Mapping[str, Shape], inputs: list[fx.Node]) -> sympy.Symbol:
    for node in inputs:
        shape = shapes.get(node.name, ())
        if shape and shape[0].is_Symbol:
            return shape[0]
    return sympy.Symbol("batch", integer=True, positive=True)
