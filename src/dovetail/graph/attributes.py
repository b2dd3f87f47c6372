"""Integers that modules hold and that follow the widths: `in_features`, `groups`, `num_heads`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from torch import nn

from dovetail.graph.flat import Flat
from dovetail.graph.heads import Heads

__all__ = ["SizeAttribute", "read_attributes", "set_attributes"]


@dataclass(frozen=True, slots=True)
class SizeAttribute:
    """An integer attribute of a module that follows the widths.

    Args:
        module: path of the module.
        name: the attribute.
        index: which entry of it, where it is a tuple (`normalized_shape`), else None.
        size: its value in the graph's symbols.
    """

    module: str
    name: str
    index: int | None
    size: sympy.Expr


def set_attributes(model: nn.Module, attributes: Iterable[SizeAttribute], value: Callable[[sympy.Expr], int]) -> None:
    """Let modules that hold widths as numbers (`in_features`, `groups`, `num_heads`) hold other ones.

    Args:
        model: changed in place.
        attributes: what follows the widths.
        value: the value of a size in the graph's symbols.
    """
    for attribute in attributes:
        module, size = model.get_submodule(attribute.module), value(attribute.size)
        if attribute.index is not None:
            sizes = list(getattr(module, attribute.name))
            sizes[attribute.index] = size
            setattr(module, attribute.name, tuple(sizes))
        else:
            setattr(module, attribute.name, size)


# Attribute -> (tensor of the module, dimension) for modules that hold nothing else; convolutions are told apart by
# their groups.
_OF_WEIGHT: Mapping[type[nn.Module], Mapping[str, tuple[str, int]]] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    nn.Bilinear: {"in1_features": ("weight", 1), "in2_features": ("weight", 2), "out_features": ("weight", 0)},
    nn.Embedding: {"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)},
    nn.modules.batchnorm._NormBase: {"num_features": ("running_mean", 0)},
    nn.GroupNorm: {"num_channels": ("weight", 0)},
    nn.PReLU: {"num_parameters": ("weight", 0)},
}


def read_attributes(model: nn.Module, flat: Flat, heads: tuple[Heads, ...]) -> tuple[SizeAttribute, ...]:
    """Integer attributes of a model's modules that follow the widths, in the order of its modules.

    Args:
        model: the model.
        flat: its graph, in the symbols of its width groups.
        heads: its attention modules whose heads are sizes.
    """
    first = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    numbers = {head.path: flat.sizes[head.names[0]] for head in heads}
    found: list[SizeAttribute] = []
    for path, module in model.named_modules():

        def shape(name: str, module: nn.Module = module) -> tuple[sympy.Expr, ...]:
            owner, _, leaf = name.rpartition(".")
            tensor = getattr(module.get_submodule(owner), leaf, None)
            return flat.tensor_shape(first[id(tensor)]) if id(tensor) in first else ()

        if isinstance(module, nn.MultiheadAttention):
            sizes = _attention(module, numbers.get(path, sympy.Integer(module.num_heads)), shape)
            found += [SizeAttribute(path, *named) for named in sizes]
        for name, index, size in (*_sizes(module, shape), *_norm_shape(module, shape)):
            found.append(SizeAttribute(path, name, index, size))
    for head in heads:
        number, width = (flat.sizes[name] for name in head.names)
        values = {"number": number, "queries": number * head.repeats, "width": width}
        values["total"] = sympy.expand(values["queries"] * width)
        found += [SizeAttribute(head.path, name, None, values[role]) for name, role in head.attributes]
    return tuple(attribute for attribute in found if attribute.size.free_symbols)


def _sizes(module: nn.Module, shape: Any) -> Iterator[tuple[str, int | None, sympy.Expr]]:
    if isinstance(module, nn.modules.conv._ConvNd):
        yield from _convolution(module, shape("weight"))
        return
    for kind, names in _OF_WEIGHT.items():
        if isinstance(module, kind):
            for name, (tensor, dim) in names.items():
                if isinstance(getattr(module, name, None), int) and len(sizes := shape(tensor)) > dim:
                    yield name, None, sizes[dim]
    if type(module).__name__ == "Conv1D" and len(sizes := shape("weight")) == 2:  # transformers' linear layer
        yield "nx", None, sizes[0]
        yield "nf", None, sizes[1]


def _convolution(
    module: nn.modules.conv._ConvNd, weight: tuple[sympy.Expr, ...]
) -> Iterator[tuple[str, None, sympy.Expr]]:
    if not weight:
        return
    first, second = weight[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels and not module.transposed
    multiplier = module.out_channels // module.in_channels if depthwise else 1
    groups = first / multiplier if depthwise else sympy.Integer(module.groups)
    inputs, outputs = sympy.expand(second * groups), first
    if module.transposed:
        inputs, outputs = first, sympy.expand(second * groups)
    yield "in_channels", None, inputs
    yield "out_channels", None, outputs
    if depthwise:
        yield "groups", None, groups


def _attention(module: nn.MultiheadAttention, number: sympy.Expr, shape: Any) -> Iterator[tuple[str, None, sympy.Expr]]:
    """Sizes of PyTorch's attention, whose heads divide its embedding."""
    for embedding in shape("out_proj.weight")[1:]:  # its outputs need not be as many
        yield "embed_dim", None, embedding
        yield "kdim", None, shape("k_proj_weight")[1] if module.k_proj_weight is not None else embedding
        yield "vdim", None, shape("v_proj_weight")[1] if module.v_proj_weight is not None else embedding
        yield "head_dim", None, sympy.cancel(embedding / number)


def _norm_shape(module: nn.Module, shape: Any) -> Iterator[tuple[str, int, sympy.Expr]]:
    if isinstance(getattr(module, "normalized_shape", None), (tuple, list)):
        yield from (("normalized_shape", i, size) for i, size in enumerate(shape("weight")))
