"""Make in-place operators functional, so that a node's value never changes after it is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

__all__ = ["functionalise"]

# Operators whose result shares memory with their first argument.
_VIEWS = frozenset(
    """view reshape flatten unflatten transpose permute t numpy_T mT squeeze unsqueeze expand expand_as alias select
    slice split split_with_sizes chunk unbind narrow detach contiguous movedim swapaxes to view_as unfold
    diagonal""".split()  # noqa: SIM905 - a table of names reads better as one
)


def functionalise(module: fx.GraphModule) -> None:
    """Replace `op_` by `op` and let later readers of its argument read its result.

    An operator that writes through a view, or into a tensor that has views, stays as it is: its effect is not one
    node's.
    """
    graph = module.graph
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        target = _functional(node)
        if target is None or not isinstance(node.args[0], fx.Node) or _shares_memory(node.args[0]):
            continue
        written = node.args[0]
        node.target = target
        for user in list(written.users):
            if order[user] > order[node]:
                user.replace_input_with(written, node)


def _functional(node: fx.Node) -> Any:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    name = node.target._schema.name.partition("::")[2]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    return getattr(packet, node.target._overloadname, None)


def _shares_memory(node: fx.Node) -> bool:
    return _is_view(node) or node.op != "call_function" or any(_is_view(user) for user in node.users)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.partition("::")[2] in _VIEWS
