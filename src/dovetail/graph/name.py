"""Operations of a flat graph: their names, types, parameters and sites."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import fx, nn

from dovetail.graph.calls import Call
from dovetail.graph.flat import Flat
from dovetail.graph.kinds import kind_of, tensor_arguments
from dovetail.graph.operation import Operation
from dovetail.plan import SiteKind

__all__ = ["name_operations"]

# Arguments that are an operation's weight and bias; running statistics and masks are neither.
_WEIGHTS = frozenset({"weight", "other", "mat2", "tensor1", "tensor2", "self", "input", "query", "key", "value"})
_BIASES = frozenset({"bias"})
_NO_DATA = frozenset({"running_mean", "running_var", "attn_mask", "mask", "indices", "index"})


def name_operations(flat: Flat, model: nn.Module) -> tuple[Operation, ...]:
    """The operations of a flat graph, in order.

    Args:
        flat: the graph.
        model: the model it was exported from, for the names of its modules.
    """
    nodes = [node for node in flat.module.graph.nodes if node.op == "call_function" and node.name in flat.shapes]
    names = _names(nodes, flat, model)
    alone = _calls_of_one_operation(nodes, flat)
    parameters = {node.name: name for name, node in flat.placeholders.items()}
    return tuple(_operation(node, names[node.name], flat, parameters, alone) for node in nodes)


def _names(nodes: Iterable[fx.Node], flat: Flat, model: nn.Module) -> dict[str, str]:
    leaves = {path for path, module in model.named_modules() if path and not any(True for _ in module.children())}
    main = defaultdict(list)
    for node in nodes:
        call = flat.calls.get(node.name)
        if call is not None and call.path in leaves and not kind_of(node.target).structural:
            main[call.path].append(node)
    names: dict[str, str] = {}
    for path, found in main.items():
        if (
            len({kind_of(node.target).type for node in found}) > 1
            or len({flat.calls[n.name].function for n in found}) > 1
        ):
            continue  # a leaf of several operations: none of them is *the* operation of the module
        for i, node in enumerate(found):
            names[node.name] = path if i == 0 else f"{path}#{i}"
    taken = set(names.values())
    for node in nodes:
        if node.name not in names:
            name = node.name
            while name in taken:
                name += "_"
            names[node.name] = name
            taken.add(name)
    return names


def _calls_of_one_operation(nodes: Iterable[fx.Node], flat: Flat) -> set[Call]:
    counts = Counter(
        flat.calls[node.name] for node in nodes if node.name in flat.calls and not kind_of(node.target).structural
    )
    return {call for call, count in counts.items() if count == 1}


def _operation(node: fx.Node, name: str, flat: Flat, parameters: dict[str, str], alone: set[Call]) -> Operation:
    kind, call = kind_of(node.target), flat.calls.get(node.name)
    weight = bias = None
    has_data = False
    for argument, source in tensor_arguments(node).items():
        argument = argument.partition(".")[0]
        tensor = parameters.get(source.name)
        if argument in _BIASES and tensor is not None:
            bias = tensor
        elif argument in _WEIGHTS and tensor in flat.parameters:
            weight = tensor
        elif tensor is None and argument not in _NO_DATA:
            has_data |= flat.dtypes.get(source.name, torch.int64).is_floating_point
    kinds = [(SiteKind.DATA_IN, has_data), (SiteKind.WEIGHT, weight is not None), (SiteKind.BIAS, bias is not None)]
    sites = tuple(site for site, present in kinds if present)
    if kind.structural:
        why = f"{kind.type} moves values and computes none"
    elif call is None or call not in alone:
        why = "no single call in the model's code computes it"
    elif not sites:
        why = "none of its operands is a floating-point tensor that is computed"
    else:
        why = None
    return Operation(
        name=name,
        type=kind.type,
        node=node.name,
        sites=() if why else sites,
        weight=weight,
        bias=bias,
        module=call.path if call is not None else None,
        call=call if call is not None and (call in alone or kind.structural) else None,
        no_sites=why,
    )
