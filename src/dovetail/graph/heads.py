"""Attention modules that hold the number and width of their heads as Python numbers, lifted to sizes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

__all__ = ["Heads", "find_heads", "hint", "set_heads", "unify"]

# What attention modules call these numbers; the number of heads is often kept in the module's `config` alone.
_NUMBER = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
_KEY_VALUE_NUMBER = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
_WIDTH = ("head_dim", "attention_head_size", "head_size", "dim_head", "d_head")
_TOTAL = ("all_head_size", "inner_dim", "embed_dim", "split_size", "hidden_size", "dim")


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one attention module.

    Args:
        path: the module.
        number: heads of keys and values; queries have `repeats` times as many.
        width: width of a head.
        repeats: query heads that share one head of keys and values.
        attributes: (attribute of the module, which of "number", "queries", "width", "total" it holds).
    """

    path: str
    number: int
    width: int
    repeats: int
    attributes: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two sizes, which are names of width groups too."""
        prefix = f"{self.path}." if self.path else ""
        return f"{prefix}num_heads", f"{prefix}head_dim"


def find_heads(model: nn.Module) -> tuple[Heads, ...]:
    """Attention modules of a model whose heads are projections of their own: with a head width and several heads."""
    return tuple(heads for path, module in model.named_modules() if (heads := _heads(path, module)) is not None)


def _heads(path: str, module: nn.Module) -> Heads | None:
    if isinstance(module, nn.MultiheadAttention):  # its heads divide the embedding: their width follows from that group
        return None
    width_name = next((name for name in _WIDTH if _is_size(getattr(module, name, None))), None)
    queries = _number(module, _NUMBER)
    if width_name is None or queries is None:
        return None
    width, number = getattr(module, width_name), _number(module, _KEY_VALUE_NUMBER) or queries
    outputs = {size for child in _projections(module) for size in child.shape}
    if queries % number or not {queries * width, 3 * queries * width} & outputs:
        return None
    found = [(width_name, "width")]
    found += [(n, "queries") for n in _NUMBER if getattr(module, n, None) == queries]
    found += [(n, "number") for n in _KEY_VALUE_NUMBER if getattr(module, n, None) == number]
    found += [(n, "total") for n in _TOTAL if getattr(module, n, None) == queries * width]
    return Heads(path, number, width, queries // number, tuple(found))


def _projections(module: nn.Module) -> Iterator[torch.Tensor]:
    for child in module.children():
        weight = getattr(child, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2:
            yield weight


def _number(module: nn.Module, names: tuple[str, ...]) -> int | None:
    for source in (module, getattr(module, "config", None)):
        for name in names:
            value = getattr(source, name, None)
            if isinstance(value, int) and _is_size(value):
                return value
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


def set_heads(module: nn.Module, heads: Heads, number: Any, width: Any) -> None:
    """Let a module of a shadow hold these sizes where it holds numbers."""
    values = {
        "number": number,
        "queries": number * heads.repeats,
        "width": width,
        "total": number * heads.repeats * width,
    }
    for name, role in heads.attributes:
        setattr(module, name, values[role])


def hint(size: int | torch.SymInt) -> int:
    """The value of a size in the example."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else size


def unify(size: int | torch.SymInt, same: int | torch.SymInt) -> None:
    """Let one size be another expression from now on; the two are equal in the example.

    `torch._check(a == b)` leaves an equation between a symbol and a product of symbols as a guard; a substitution is
    what makes every later shape come out in the product's factors.
    """
    if not isinstance(size, torch.SymInt):
        return
    symbol = size.node.expr
    expression = same.node.expr if isinstance(same, torch.SymInt) else same
    if symbol.is_Symbol and symbol != expression:
        environment: ShapeEnv = size.node.shape_env
        environment._set_replacement(symbol, expression, "dovetail: sizes of one tensor")
