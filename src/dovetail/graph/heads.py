"""Attention modules that hold the number and width of their heads as Python numbers, lifted to sizes of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

__all__ = ["Heads", "Pair", "divide_embedding", "find_heads", "hint", "set_heads", "unify"]

Size = int | torch.SymInt
Pair = tuple[Size, Size]
"""Number and width of heads."""

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
    if isinstance(module, nn.MultiheadAttention):  # its heads divide the embedding
        if not (_is_size(module.num_heads) and _is_size(module.head_dim)):
            return None
        return Heads(path, module.num_heads, module.head_dim, 1, (("num_heads", "queries"),))
    width_name = next((name for name in _WIDTH if _is_size(getattr(module, name, None))), None)
    if width_name is None:
        return None
    width, config = getattr(module, width_name), getattr(module, "config", None)
    counted = _number(module, _NUMBER), _number(module, _KEY_VALUE_NUMBER)
    configured = _number(config, _NUMBER), _number(config, _KEY_VALUE_NUMBER)
    repeats = _repeats(*counted) or _repeats(*configured) or 1
    queries = counted[0] or repeats * (_number_of_projections(module, width, repeats) or 0) or configured[0] or 0
    number, rest = divmod(queries, repeats)
    sizes = {size for projection in _projections(module) for size in projection}
    if number < 2 or rest or not {queries * width, 3 * queries * width} & sizes:
        return None
    found = [(width_name, "width")]
    found += [(n, "queries") for n in _NUMBER if getattr(module, n, None) == queries]
    found += [(n, "number") for n in _KEY_VALUE_NUMBER if getattr(module, n, None) == number]
    found += [(n, "total") for n in _TOTAL if getattr(module, n, None) == queries * width]
    return Heads(path, number, width, queries // number, tuple(found))


def _projections(module: nn.Module) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of each."""
    for child in module.children():
        weight = getattr(child, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2:
            rows, columns = weight.shape
            yield (columns, rows) if isinstance(child, nn.Linear) else (rows, columns)


def _number_of_projections(module: nn.Module, width: int, repeats: int) -> int | None:
    """Heads of keys and values by the projections alone: a configuration is shared by all modules of a model, and does
    not follow when one of them is resized."""
    projections = tuple(_projections(module))
    inputs, outputs = {inner for inner, _ in projections}, [outer for _, outer in projections]
    for output in outputs:
        for fused in (repeats, repeats + 2):  # queries by themselves, or with keys and values
            number, rest = divmod(output, fused * width)
            keys = {number * width, (repeats + 2) * number * width}
            if rest == 0 and number * repeats * width in inputs and keys.intersection(outputs):
                return number
    return None


def _number(source: object, names: tuple[str, ...]) -> int | None:
    values = (getattr(source, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and _is_size(value)), None)


def _repeats(queries: int | None, keys: int | None) -> int | None:
    return queries // keys if queries is not None and keys is not None else None


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


def divide_embedding(embedding: Size, own: Pair, others: Iterable[Pair]) -> Pair:
    """The heads that an embedding is made of, where a module cuts the embedding itself into heads.

    Modules on one stream of embeddings share them: the first makes the stream the product of its own two sizes.

    Args:
        embedding: the size that is cut.
        own: the module's sizes.
        others: the sizes of such modules, its own among them.
    """
    number, width = own
    if isinstance(embedding, torch.SymInt) and embedding.node.expr.is_Symbol:
        unify(embedding, number * width)
        return own
    for pair in others:
        if _expression(pair[0] * pair[1]) == _expression(embedding) and hint(pair[0]) == hint(number):
            return pair
    return hint(number), hint(width)


def _expression(size: Size) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


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
