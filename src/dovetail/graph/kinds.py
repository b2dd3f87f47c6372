"""What an aten operator is called as an operation, and which of its tensors can be given a format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

__all__ = ["Kind", "kind_of", "tensor_arguments"]

# Operators known by another name; others go by their schema's, without trailing underscores.
_NAMES = {
    "scaled_dot_product_attention": "attention",
    "mm": "matmul",
    "bmm": "matmul",
    "_softmax": "softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_unsafe_view": "view",
    "convolution": "conv",
    "hardtanh": "hardtanh",
}

# Operators that move, select or bookkeep and compute nothing.
_STRUCTURAL = frozenset(
    """view reshape flatten unflatten transpose permute t numpy_T mT squeeze unsqueeze expand expand_as contiguous clone
    detach alias select slice split split_with_sizes chunk unbind index index_select narrow repeat tile cat stack pad
    constant_pad_nd dropout feature_dropout alpha_dropout to _to_copy type_as lift_fresh_copy arange zeros ones full
    empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty scalar_tensor sym_size size
    copy identity movedim swapaxes roll pixel_shuffle pixel_unshuffle channel_shuffle masked_fill where tril triu eq ne
    lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not view_as repeat_interleave gather
    scatter item _local_scalar_dense unfold
    flip""".split()  # noqa: SIM905 - a table of names reads better as one
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a node computes.

    Args:
        type: the operation's type.
        structural: whether it only moves or selects values, so that formats have nothing to act on.
    """

    type: str
    structural: bool


def kind_of(target: Callable[..., Any] | str) -> Kind:
    """The kind of a graph node's target."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        name = getattr(target, "__name__", str(target)).strip("_")
        return Kind(name, True)  # Python arithmetic on sizes
    name = schema.name.partition("::")[2]
    inplace = name.endswith("_") and not name.startswith("__")
    name = name.rstrip("_") if inplace else name
    return Kind(_NAMES.get(name, name), name in _STRUCTURAL)


def tensor_arguments(node: fx.Node) -> dict[str, fx.Node]:
    """The nodes that a node takes as arguments, by the operator's own argument names; members of lists as
    `tensors.0`."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    named = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    found: dict[str, fx.Node] = {}
    for name, value in named.items():
        if isinstance(value, fx.Node):
            found[name] = value
        elif isinstance(value, (list, tuple)):
            found |= {f"{name}.{i}": member for i, member in enumerate(value) if isinstance(member, fx.Node)}
    return found
