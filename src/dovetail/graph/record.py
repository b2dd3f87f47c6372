"""The graph of one run: for models that cannot be exported but do run.

Control flow that follows the values of tensors has no graph. What such a model computes on the example inputs does:
the path that it took. Costs are those of that path, widths are constants, and formats go to calls that the code makes
alike on other inputs. The graph says of itself that it must not stand in for the model on other data.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from dovetail.graph.attributes import read_attributes
from dovetail.graph.calls import Call
from dovetail.graph.collect import find_widths, read_groups
from dovetail.graph.divide import Divided
from dovetail.graph.export import CALL_KEY, Functional
from dovetail.graph.flat import Flat, Shape, results
from dovetail.graph.functional import functionalise
from dovetail.graph.graph import Graph
from dovetail.graph.kinds import kind_of
from dovetail.graph.name import name_operations
from dovetail.graph.rename import symbol
from dovetail.graph.steady import unsteady_calls, without_sites

__all__ = ["record_graph"]

# What reading a tensor's values leaves behind: nothing that the model's result is made of.
_READING = frozenset({"resolve_conj", "resolve_neg", "is_nonzero", "equal"})


def record_graph(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], obstacle: str, line: str
) -> Graph:
    """The graph of what a model computes on example inputs.

    Args:
        model: the model in eval mode; copies of it are run.
        inputs, kwargs: example inputs; the first dimension of each tensor is the batch.
        obstacle: why it cannot be exported.
        line: of the model's code, at fault for that.

    Raises:
        Exception: Whatever the model raises when it is run.
    """
    flat = _record(model, inputs, kwargs)
    operations = without_sites(
        name_operations(flat, model),
        unsteady_calls(model, inputs, kwargs),
        "the model's code does not make this call alike on other inputs",
    )
    groups = read_groups(flat, find_widths(Divided(flat, {}), operations), operations)
    return Graph(
        module=flat.module,
        operations=operations,
        groups=tuple(dataclasses.replace(group, frozen=f"the model cannot be exported: {line}") for group in groups),
        parameters={name: flat.tensor_shape(name) for name in flat.parameters},
        buffers={name: flat.tensor_shape(name) for name in flat.tensor_names if name not in flat.parameters},
        shapes=flat.shapes,
        dtypes=flat.dtypes,
        bindings=flat.bindings,
        batch=flat.batch,
        tensor_names=flat.tensor_names,
        num_inputs=flat.num_inputs,
        sizes={},
        attributes=read_attributes(model, flat, ()),
        obstacle=obstacle,
    )


def _record(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flat:
    """The run as a flat graph. A second run on the example inputs twice over tells which sizes follow the batch."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    once, twice = _run(model, tensors, inputs, kwargs), None
    with contextlib.suppress(Exception):  # a model that takes this batch alone has a graph of this batch alone
        twice = _run(model, tensors, tuple(map(_doubled, inputs)), {n: _doubled(x) for n, x in kwargs.items()})
    batch = symbol("batch")
    first = next((x for x in (*inputs, *kwargs.values()) if isinstance(x, Tensor) and x.ndim > 0), None)
    size = first.shape[0] if first is not None else 1
    shapes = _shapes(once, twice, batch, size)
    nodes = list(once.graph.nodes)
    return Flat(
        module=once,
        tensor_names=tuple(tensors),
        parameters=frozenset(dict(model.named_parameters())),
        num_inputs=sum(node.op == "placeholder" for node in nodes) - len(tensors),
        sizes={},
        equations=(),
        pinned={},
        shapes=shapes,
        dtypes={node.name: _value(node).dtype for node in nodes if node.name in shapes},
        scalars={},
        calls={node.name: Call.parse(text) for node in nodes if (text := node.meta.get("custom", {}).get(CALL_KEY))},
        lines={node.name: line for node in nodes if (line := node.meta.get("stack_trace"))},
        bindings={batch: size} if any(batch in s.free_symbols for shape in shapes.values() for s in shape) else {},
        batch=batch,
    )


def _doubled(value: Any) -> Any:
    return value.repeat(2, *[1] * (value.ndim - 1)) if isinstance(value, Tensor) and value.ndim > 0 else value


def _run(
    model: nn.Module, tensors: Mapping[str, Tensor], inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> fx.GraphModule:
    """Run a copy of a model on copies of its tensors, writing down every operator."""
    given = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    functional = Functional(copy.deepcopy(model), ())
    with preserve_node_meta(), torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
        traced = make_fx(
            functional,
            tracing_mode="real",
            pre_dispatch=True,
            record_stack_traces=True,
            _error_on_data_dependent_ops=False,
        )(given, {}, inputs, dict(kwargs))
    return _tidied(traced)


def _tidied(traced: fx.GraphModule) -> fx.GraphModule:
    """The graph with tensors that the code held as buffers, and without what only reads values.

    What computed those values stays, for it costs what it costs.
    """
    module = fx.GraphModule({}, fx.Graph())
    module.graph.owning_module = None
    copied: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            module.graph.output(tuple(copied[result] for result in results(node)))
        elif node.op == "get_attr":
            name = f"constant_{str(node.target).replace('.', '_')}"
            module.register_buffer(name, getattr(traced, str(node.target)).detach())
            copied[node] = module.graph.get_attr(name)
            copied[node].meta = dict(node.meta)
        else:
            copied[node] = module.graph.node_copy(node, lambda n: copied[n])
    functionalise(module)
    for node in reversed(list(module.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users and _only_reads(node):
            module.graph.erase_node(node)
    module.recompile()
    return module


def _only_reads(node: fx.Node) -> bool:
    if node.op == "get_attr" or _value(node) is None:
        return True
    kind = kind_of(node.target)
    return kind.structural or kind.type in _READING


def _value(node: fx.Node) -> Any:
    """The tensor that a node gave, without its memory; of several the first, as in an exported graph."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return first if isinstance(first, Tensor) else None


def _shapes(once: fx.GraphModule, twice: fx.GraphModule | None, batch: sympy.Symbol, size: int) -> dict[str, Shape]:
    """Shapes of a run's tensors; in the batch where a run on twice the batch took the same path."""
    nodes = [node for node in once.graph.nodes if _value(node) is not None]
    others = [node for node in twice.graph.nodes if _value(node) is not None] if twice is not None else []
    same = len(nodes) == len(others) and all(
        (a.op, a.target if a.op == "call_function" else "", _value(a).ndim)
        == (b.op, b.target if b.op == "call_function" else "", _value(b).ndim)
        for a, b in zip(nodes, others, strict=True)
    )
    if not same:
        return {node.name: tuple(map(sympy.Integer, _value(node).shape)) for node in nodes}
    return {
        a.name: tuple(
            sympy.Integer(n) + sympy.Rational(m - n, size) * (batch - size)
            for n, m in zip(_value(a).shape, _value(b).shape, strict=True)
        )
        for a, b in zip(nodes, others, strict=True)
    }
