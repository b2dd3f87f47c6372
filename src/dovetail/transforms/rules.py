"""What each operation of an exported graph does to the channels of its operands: the table of rules.

A rule takes the walk's state and the operation, and returns what is known of its result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from dovetail.transforms.arguments import Operands
from dovetail.transforms.contracting import addmm, attention, convolution, embedding, linear, matmul
from dovetail.transforms.elementwise import filled, pointwise, prelu, same, unknown
from dovetail.transforms.moving import (
    cat,
    expand,
    pad,
    permute,
    pieces,
    repeat,
    select,
    slice_,
    squeeze,
    stack,
    unsqueeze,
    view,
)
from dovetail.transforms.statistical import batch_norm, group_norm, layer_norm, pool, reduction, softmax
from dovetail.transforms.tracking import State, Value

__all__ = ["RULES", "Rule", "rule_of"]

Rule = Callable[[State, Operands], "Value | list[Value]"]


def _table() -> dict[str, Rule]:
    rows: list[tuple[Rule, str]] = [
        (linear, "linear"),
        (addmm, "addmm baddbmm"),
        (matmul, "matmul bmm mm mv"),
        (convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"),
        (batch_norm, "batch_norm instance_norm"),
        (layer_norm, "layer_norm rms_norm"),
        (group_norm, "group_norm"),
        (
            pool,
            "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
            "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices "
            "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d",
        ),
        (reduction, "mean sum amax amin max min var std any all prod norm linalg_vector_norm argmax argmin logsumexp"),
        (softmax, "softmax log_softmax _softmax _log_softmax cumsum"),
        (attention, "scaled_dot_product_attention"),
        (embedding, "embedding"),
        (cat, "cat concat concatenate"),
        (stack, "stack"),
        (view, "view reshape _unsafe_view flatten unflatten"),
        (permute, "permute transpose t mT numpy_T"),
        (unsqueeze, "unsqueeze"),
        (squeeze, "squeeze"),
        (expand, "expand expand_as broadcast_to"),
        (repeat, "repeat"),
        (select, "select"),
        (slice_, "slice narrow"),
        (pieces, "chunk split split_with_sizes unbind"),
        (pad, "pad constant_pad_nd"),
        (filled, "zeros ones empty full zeros_like ones_like full_like empty_like new_zeros new_ones scalar_tensor"),
        (prelu, "prelu"),
        (
            same,
            "to _to_copy clone contiguous detach alias lift_fresh_copy dropout feature_dropout alpha_dropout",
        ),
        (pointwise, "relu6 selu rrelu hardswish hardsigmoid hardtanh type_as silu mish gelu rsqrt masked_fill where"),
    ]
    return {name: rule for rule, names in rows for name in names.split()}


RULES: dict[str, Rule] = _table()
"""ATen name -> rule. Operations that torch tags as pointwise need no row."""


def rule_of(node: fx.Node, function: str) -> Rule:
    """The rule for a node of the graph."""
    if function in RULES:
        return RULES[function]
    tags = getattr(node.target, "tags", ())
    return pointwise if torch.Tag.pointwise in tags else unknown
