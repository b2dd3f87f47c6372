"""Size attributes of modules: what `Linear.in_features` and its kind must say after the parameters have changed.

Most torch modules compute from their parameters' shapes and only report their sizes; some (`groups`,
`normalized_shape`, `num_channels`) compute with the attribute. All are brought into line, so that the module prints,
saves and exports as what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dovetail.errors import ResizeError

__all__ = ["SIZES", "update_sizes"]

Sizes = dict[str, Any]
"""Attribute -> new value."""


def _shape(module: nn.Module, name: str) -> tuple[int, ...] | None:
    tensor = getattr(module, name, None)
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else None


def _linear(module: nn.Linear) -> Sizes:
    out, into = module.weight.shape
    return {"in_features": into, "out_features": out}


def _bilinear(module: nn.Bilinear) -> Sizes:
    out, first, second = module.weight.shape
    return {"in1_features": first, "in2_features": second, "out_features": out}


def _convolution(module: Any) -> Sizes:
    if module.transposed:
        into, out = module.weight.shape[0], module.weight.shape[1] * module.groups
        return {"in_channels": into, "out_channels": out}
    out, per_group = module.weight.shape[:2]
    groups = module.groups
    if groups > 1 and groups == module.in_channels:  # depthwise: a filter set per channel, whatever their number
        groups = out * module.in_channels // module.out_channels
    return {"in_channels": per_group * groups, "out_channels": out, "groups": groups}


def _channels(module: Any) -> Sizes:
    shape = _shape(module, "weight") or _shape(module, "running_mean")
    return {"num_features": shape[0]} if shape else {}


def _normalised_shape(module: Any) -> Sizes:
    shape = _shape(module, "weight")
    return {"normalized_shape": shape} if shape else {}


def _group_norm(module: nn.GroupNorm) -> Sizes:
    shape = _shape(module, "weight")
    return {"num_channels": shape[0]} if shape else {}


def _embedding(module: Any) -> Sizes:
    count, width = module.weight.shape
    return {"num_embeddings": count, "embedding_dim": width}


def _prelu(module: nn.PReLU) -> Sizes:
    return {"num_parameters": module.weight.shape[0]}


def _multihead(module: nn.MultiheadAttention) -> Sizes:
    width = module.out_proj.weight.shape[0]
    into = width if module.in_proj_weight is not None else None
    return {
        "embed_dim": width,
        "head_dim": module.out_proj.weight.shape[1] // module.num_heads,
        "kdim": into or module.k_proj_weight.shape[1],
        "vdim": into or module.v_proj_weight.shape[1],
    }


def _recurrent(module: Any) -> Sizes:
    return {"input_size": module.weight_ih_l0.shape[1], "hidden_size": module.weight_hh_l0.shape[1]}


SIZES: dict[type[nn.Module], Callable[[Any], Sizes]] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.modules.conv._ConvNd: _convolution,
    nn.modules.batchnorm._NormBase: _channels,
    nn.LayerNorm: _normalised_shape,
    nn.RMSNorm: _normalised_shape,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: _multihead,
    nn.RNNBase: _recurrent,
}
"""Module class -> its size attributes, read off its parameters. Subclasses are covered by their base."""


def update_sizes(module: nn.Module, path: str) -> None:
    """Bring a module's own size attributes into line with its parameters.

    Args:
        module: one of our own copies.
        path: its name, for messages.

    Raises:
        ResizeError: Its channels cannot be cut into its groups.
    """
    for kind in type(module).__mro__:
        if kind in SIZES:
            for name, value in SIZES[kind](module).items():
                setattr(module, name, value)
            break
    if isinstance(module, nn.GroupNorm):
        _require_multiple(path, module.num_channels, module.num_groups)
    elif isinstance(module, nn.modules.conv._ConvNd):
        _require_multiple(path, module.out_channels, module.groups)


def _require_multiple(path: str, width: int, groups: int) -> None:
    if width % groups:
        near = [w for w in (width // groups * groups, (width // groups + 1) * groups) if w]
        raise ResizeError(
            f"layer {path!r}: width must be a multiple of its {groups} groups, got {width}. "
            f"Nearest allowed: {' or '.join(map(str, near))}."
        )
