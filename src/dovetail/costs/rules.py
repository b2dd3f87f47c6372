"""The table of counting rules: operator -> what a call of it costs.

An operator that is not in the table costs nothing if PyTorch's schema says that it returns a view of its argument, one
FLOP per element if PyTorch tags it as pointwise, one per element read if it is tagged as a reduction. Any other has no
rule: figures list it as unpriced until a rule is registered.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from dovetail.costs import counting
from dovetail.costs.counting import free, per_input, per_output
from dovetail.costs.work import Rule, target_name
from dovetail.errors import PricingError

__all__ = ["RULES", "is_view", "register_rule", "rule_for"]

# Moves, selects, compares, creates: values pass unchanged, or nothing that floats is computed.
_FREE = """
    alias arange argmax argmin argsort as_strided bincount cat channel_shuffle clone column_stack concat concatenate
    constant_pad_nd contiguous copy count_nonzero detach diag diag_embed diagonal dropout dropout1d embedding
    embedding_renorm empty empty_like empty_permuted eq expand_as feature_dropout alpha_dropout feature_alpha_dropout
    fill flip full full_like gather ge gt hstack index index_copy index_put index_select is_nonzero isfinite isinf isnan
    isin item le lift_fresh_copy linspace _local_scalar_dense logical_and logical_not logical_or logical_xor lt
    masked_fill masked_scatter masked_select meshgrid narrow_copy native_dropout ne new_empty new_full new_ones
    new_zeros nonzero one_hot ones ones_like pad permute_copy pixel_shuffle pixel_unshuffle rand rand_like randn
    randn_like reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d roll rot90 scalar_tensor scatter searchsorted select_scatter size slice_scatter
    sort split_copy stack sym_numel sym_size take tile to _to_copy topk tril tril_indices triu triu_indices type_as
    unfold_copy view_as_complex view_as_real vstack where zero zeros zeros_like im2col _assert_async _assert_scalar
    _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size any all bitwise_and bitwise_or bitwise_not
    bitwise_xor __and__ __or__ __xor__
""".split()  # noqa: SIM905 - a table of words, quoted once

# One operation per element of the output; what PyTorch tags as pointwise need not be listed.
_ELEMENTWISE = """
    clamp celu cumprod cumsum diff elu float_power gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid
    logcumsumexp mish prelu relu relu6 rrelu rsub selu sigmoid silu softplus softshrink softsign square sub tanh
    threshold true_divide upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
""".split()  # noqa: SIM905 - a table of words, quoted once

# One operation per element that is read; what PyTorch tags as a reduction need not be listed.
_READING = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d log_softmax logsumexp max_pool1d max_pool1d_with_indices
    max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices softmax _softmax _log_softmax amax amin max
    min mean sum prod nansum nanmean
""".split()  # noqa: SIM905 - a table of words, quoted once

RULES: dict[str, Rule] = {
    **{f"aten.{name}": free for name in _FREE},
    **{f"aten.{name}": per_output(1) for name in _ELEMENTWISE},
    **{f"aten.{name}": per_input(1) for name in _READING},
    "aten.linear": counting.linear,
    "aten.matmul": counting.matmul,
    "aten.mm": counting.matmul,
    "aten.bmm": counting.matmul,
    "aten.mv": counting.matmul,
    "aten.dot": counting.matmul,
    "aten.addmm": counting.addmm,
    "aten.addmv": counting.addmm,
    "aten.baddbmm": counting.addmm,
    "aten.addbmm": counting.addmm,
    "aten.einsum": counting.einsum,
    "aten.conv1d": counting.convolution,
    "aten.conv2d": counting.convolution,
    "aten.conv3d": counting.convolution,
    "aten.conv_transpose1d": counting.convolution,
    "aten.conv_transpose2d": counting.convolution,
    "aten.conv_transpose3d": counting.convolution,
    "aten.convolution": counting.convolution,
    "aten.scaled_dot_product_attention": counting.attention,
    "aten.lstm": counting.lstm,
    "aten.gru": counting.gru,
    "aten.rnn_tanh": counting.rnn,
    "aten.rnn_relu": counting.rnn,
    "aten.batch_norm": counting.batch_norm,
    "aten._native_batch_norm_legit_no_training": counting.batch_norm,
    "aten.instance_norm": counting.batch_norm,
    "aten.layer_norm": counting.normalisation,
    "aten.native_layer_norm": counting.normalisation,
    "aten.group_norm": counting.normalisation,
    "aten.native_group_norm": counting.normalisation,
    "aten.rms_norm": counting.rms_norm,
    "aten.linalg_vector_norm": per_input(2),  # square, sum
    "aten.norm": per_input(2),
    "aten.var": per_input(4),  # mean, subtract, square, sum
    "aten.std": per_input(4),
    "aten.var_mean": per_input(4),
    "aten.glu": per_output(2),  # sigmoid, product
    "aten.addcmul": per_output(2),
    "aten.addcdiv": per_output(2),
    "aten.lerp": per_output(2),
}


def register_rule(target: str, rule: Rule) -> None:
    """Say what calls of an operator cost, for graphs priced from now on.

    Args:
        target: the operator's name, `namespace.operator`, without overload, such as `mylib.fused_attention`.
        rule: gives the `Work` of an `Invocation`.

    Raises:
        PricingError: The operator has a rule already, or the name has no namespace.

    Example:
        >>> from dovetail.costs import Work, elements
        >>> register_rule("mylib.square", lambda call: Work(flops=elements(call.output)))
        >>> del RULES["mylib.square"]
    """
    if "." not in target:
        raise PricingError(f"rule for {target!r}: the name must be 'namespace.operator', such as 'aten.{target}'.")
    if target in RULES:
        raise PricingError(f"rule for {target!r}: there is one already. Delete it from RULES first to replace it.")
    RULES[target] = rule


# Arithmetic on sizes, and picking one of several results.
_PYTHON = frozenset({"_operator", "builtins", "math", "torch"})


def rule_for(target: Any) -> Rule | None:
    """The rule that counts calls of a graph node's target, or None where nothing is known of it."""
    if rule := RULES.get(target_name(target)):
        return rule
    if not isinstance(target, torch._ops.OpOverload):
        return free if getattr(target, "__module__", None) in _PYTHON else None
    if is_view(target):
        return free
    if torch.Tag.pointwise in target.tags:
        return per_output(1)
    if torch.Tag.reduction in target.tags:
        return per_input(1)
    return None


# Give their argument back in eval mode, though the schema does not say so.
_IDENTITIES = frozenset({"aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout"})


@functools.cache
def is_view(target: Any) -> bool:
    """Whether an operator's result shares its argument's memory: views, in-place operators, and dropout in eval mode.

    `reshape`, `contiguous` and `to`, which copy only where they must, are taken for views.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return False
    returns = target._schema.returns
    return target_name(target) in _IDENTITIES or (bool(returns) and all(r.alias_info is not None for r in returns))
