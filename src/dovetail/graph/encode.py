"""A graph as JSON and back. Nothing is pickled, and reading runs no code but torch operators looked up by name."""

from __future__ import annotations

import base64
import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import sympy
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import fx
from torch.utils._sympy.functions import FloorDiv, Mod

from dovetail.graph.attributes import SizeAttribute
from dovetail.graph.calls import Call
from dovetail.graph.graph import Graph
from dovetail.graph.groups import Member, WidthGroup
from dovetail.graph.operation import Operation
from dovetail.plan import SiteKind

__all__ = ["decode_graph", "encode_graph"]

# Python functions that an exported graph may call beside torch operators: arithmetic on sizes.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod, operator.neg),
        *(operator.pow, operator.getitem, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
        *(torch.sym_int, torch.sym_float, torch.sym_max, torch.sym_min, torch.sym_not, torch.sym_ite, math.trunc),
    )
}
_SIZES = {"+": sympy.Add, "*": sympy.Mul, "^": sympy.Pow, "//": FloorDiv, "%": Mod}
_SIZE_SIGNS: dict[Any, str] = {kind: sign for sign, kind in _SIZES.items()}
_TORCH = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


def encode_graph(graph: Graph) -> dict[str, Any]:
    """The JSON-able form of a graph.

    Raises:
        TypeError: The graph holds something that has no such form.
    """
    module = graph.module
    constants = {name: tensor.contiguous() for name, tensor in module.named_buffers()}
    return {
        "nodes": [_encode_node(node) for node in module.graph.nodes],
        "constants": base64.b64encode(save_tensors(constants)).decode(),
        "size_values": [getattr(module, f"size_{i}") for i in range(len(graph.sizes))],
        "operations": [
            {**{f.name: getattr(o, f.name) for f in dataclasses.fields(o)}, "call": str(o.call) if o.call else None}
            for o in graph.operations
        ],
        "groups": [
            {
                "name": g.name,
                "base": g.base,
                "symbol": g.symbol.name,
                "members": [[m.parameter, m.dim, _encode_size(m.size)] for m in g.members],
                "frozen": g.frozen,
                "multiple_of": g.multiple_of,
            }
            for g in graph.groups
        ],
        "parameters": [[name, _encode_shape(shape)] for name, shape in graph.parameters.items()],
        "buffers": [[name, _encode_shape(shape)] for name, shape in graph.buffers.items()],
        "shapes": {name: _encode_shape(shape) for name, shape in graph.shapes.items()},
        "dtypes": {name: str(dtype).removeprefix("torch.") for name, dtype in graph.dtypes.items()},
        "bindings": [[s.name, value] for s, value in graph.bindings.items()],
        "batch": graph.batch.name,
        "tensor_names": graph.tensor_names,
        "num_inputs": graph.num_inputs,
        "sizes": [[name, _encode_size(size)] for name, size in graph.sizes.items()],
        "attributes": [[a.module, a.name, a.index, _encode_size(a.size)] for a in graph.attributes],
        "obstacle": graph.obstacle,
    }


def decode_graph(data: dict[str, Any]) -> Graph:
    """The graph that `encode_graph` wrote."""
    return Graph(
        module=_decode_module(data),
        operations=tuple(_decode_operation(o) for o in data["operations"]),
        groups=tuple(
            WidthGroup(
                name=g["name"],
                base=g["base"],
                symbol=_symbol(g["symbol"]),
                members=tuple(Member(name, dim, _decode_size(size)) for name, dim, size in g["members"]),
                frozen=g["frozen"],
                multiple_of=g["multiple_of"],
            )
            for g in data["groups"]
        ),
        parameters={name: _decode_shape(shape) for name, shape in data["parameters"]},
        buffers={name: _decode_shape(shape) for name, shape in data["buffers"]},
        shapes={name: _decode_shape(shape) for name, shape in data["shapes"].items()},
        dtypes={name: getattr(torch, dtype) for name, dtype in data["dtypes"].items()},
        bindings={_symbol(name): value for name, value in data["bindings"]},
        batch=_symbol(data["batch"]),
        tensor_names=tuple(data["tensor_names"]),
        num_inputs=data["num_inputs"],
        sizes={name: _decode_size(size) for name, size in data["sizes"]},
        attributes=tuple(SizeAttribute(m, name, index, _decode_size(s)) for m, name, index, s in data["attributes"]),
        obstacle=data["obstacle"],
    )


def _decode_operation(data: dict[str, Any]) -> Operation:
    sites = tuple(SiteKind(kind) for kind in data["sites"])
    return Operation(**{**data, "sites": sites, "call": Call.parse(data["call"]) if data["call"] else None})


def _decode_module(data: dict[str, Any]) -> fx.GraphModule:
    module, nodes = fx.GraphModule({}, fx.Graph()), dict[str, fx.Node]()
    for name, tensor in load_tensors(base64.b64decode(data["constants"])).items():
        module.register_buffer(name, tensor)
    for i, value in enumerate(data["size_values"]):
        setattr(module, f"size_{i}", value)
    graph = module.graph
    graph.owning_module = None
    for op, name, target, args, kwargs in data["nodes"]:
        found = _decode_target(target) if op == "call_function" else target
        arguments = tuple(_decode_value(a, nodes) for a in args)
        nodes[name] = graph.create_node(op, found, arguments, _decode_value(kwargs, nodes), name=name)
        if nodes[name].name != name:
            raise ValueError(f"node {name!r} cannot keep its name")
    module.recompile()
    return module


def _encode_node(node: fx.Node) -> list[Any]:
    target = _encode_target(node.target) if node.op == "call_function" else str(node.target)
    return [node.op, node.name, target, [_encode_value(a) for a in node.args], _encode_value(dict(node.kwargs))]


def _encode_target(target: Any) -> list[str]:
    if isinstance(target, torch._ops.OpOverload):
        return [target.namespace, target._schema.name.partition("::")[2], target._overloadname]
    if _FUNCTIONS.get(name := getattr(target, "__name__", "")) is target:
        return [name]
    raise TypeError(f"no JSON form of the function {target}")


def _decode_target(target: list[str]) -> Any:
    if len(target) == 1:
        return _FUNCTIONS[target[0]]
    namespace, name, overload = target
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _encode_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_encode_value(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[key, _encode_value(v)] for key, v in value.items()]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, slice):
        return {"slice": [_encode_value(v) for v in (value.start, value.stop, value.step)]}
    for name, kind in _TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    raise TypeError(f"no JSON form of {type(value).__name__}")


def _decode_value(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    match kind:
        case "node":
            return nodes[inner]
        case "float":
            return float(inner)
        case "list" | "tuple":
            members = [_decode_value(v, nodes) for v in inner]
            return members if kind == "list" else tuple(members)
        case "dict":
            return {key: _decode_value(v, nodes) for key, v in inner}
        case "device":
            return torch.device(inner)
        case "slice":
            return slice(*(_decode_value(v, nodes) for v in inner))
    found = getattr(torch, inner)
    if not isinstance(found, _TORCH[kind]):
        raise TypeError(f"torch.{inner} is no {kind}")
    return found


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, integer=True, positive=True)


def _encode_shape(shape: tuple[sympy.Expr, ...]) -> list[Any]:
    return [_encode_size(size) for size in shape]


def _decode_shape(shape: list[Any]) -> tuple[sympy.Expr, ...]:
    return tuple(_decode_size(size) for size in shape)


def _encode_size(size: sympy.Expr) -> Any:
    if size.is_Integer:
        return int(size)
    if size.is_Symbol:
        return size.name
    if size.is_Rational:
        return ["/", int(size.p), int(size.q)]
    sign = _SIZE_SIGNS.get(size.func)
    if sign is None:
        raise TypeError(f"no JSON form of the size {size}")
    return [sign, *(_encode_size(part) for part in size.args)]


def _decode_size(size: Any) -> sympy.Expr:
    if isinstance(size, int):
        return sympy.Integer(size)
    if isinstance(size, str):
        return _symbol(size)
    sign, *parts = size
    if sign == "/":
        return sympy.Rational(*parts)
    return _SIZES[sign](*(_decode_size(part) for part in parts))
