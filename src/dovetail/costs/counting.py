"""Counting rules: work of one call in closed form.

Two conventions follow from them. `flops_matmul` is twice the multiply-accumulates, which is what
`torch.utils.flop_counter` counts. `flops` adds the rest in the convention of DeepSpeed's profiler: biases are not
counted, an activation function or a softmax is one operation per element, a normalisation a few per element, a
reduction or pooling one per element it reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from dovetail.costs.work import Invocation, Shape, Work, elements

ZERO = sympy.Integer(0)


def free(call: Invocation) -> Work:
    """No floating-point arithmetic: views, copies, selections, comparisons, lookups, constants."""
    return Work()


def per_output(count: int) -> _PerOutput:
    """So many operations per element of the output; none where the output is not floating point."""
    return _PerOutput(count)


def per_input(count: int) -> _PerInput:
    """So many operations per element of the first operand; none where the output is not floating point."""
    return _PerInput(count)


class _PerOutput:
    def __init__(self, count: int):
        self.count = count

    def __call__(self, call: Invocation) -> Work:
        return Work(flops=self.count * elements(call.output) if call.is_float else ZERO)


class _PerInput:
    def __init__(self, count: int):
        self.count = count

    def __call__(self, call: Invocation) -> Work:
        return Work(flops=self.count * elements(call.operand()) if call.is_float else ZERO)


def linear(call: Invocation) -> Work:
    """Output elements x input features."""
    return Work(macs=elements(call.output) * call.shape("input")[-1])


def matmul(call: Invocation) -> Work:
    """Output elements x the contracted size. The left operand's last dimension is contracted."""
    return Work(macs=elements(call.output) * call.operand()[-1])


def addmm(call: Invocation) -> Work:
    """As the product it holds; the sum is a bias."""
    left = call.shape("mat1" if call.has("mat1") else "batch1" if call.has("batch1") else "mat")
    terms = left[0] if call.target == "aten.addbmm" else 1
    return Work(macs=elements(call.output) * left[-1] * terms)


def convolution(call: Invocation) -> Work:
    """Output elements (transposed: input elements) x kernel elements x channels per group."""
    weight = call.shape("weight")
    transposed = "transpose" in call.target or bool(call.arguments.get("transposed", False))
    points = call.shape("input") if transposed else call.output
    return Work(macs=elements(points) * elements(weight[1:]))


def attention(call: Invocation) -> Work:
    """Scores are q k^T, outputs scores v: score elements x (size of a key + size of a value).

    Beside it per score: scale and softmax, and the mask's sum where there is one.
    """
    *_, keys, key_size = call.shape("key")
    *rows, value_size = call.output
    scores = elements(rows) * keys
    return Work(macs=scores * (key_size + value_size), flops=scores * (3 if call.has("attn_mask") else 2))


def batch_norm(call: Invocation) -> Work:
    """2 per element (scale, shift), 1 without learnt scale; as other norms where the batch gives statistics."""
    if call.arguments.get("training") or call.arguments.get("use_input_stats"):
        return normalisation(call)
    return Work(flops=(2 if call.has("weight") else 1) * elements(call.output))


def normalisation(call: Invocation) -> Work:
    """Layer, group, instance: 5 per element (mean, variance, normalise, scale, shift), 4 without learnt scale."""
    return Work(flops=(5 if call.has("weight") else 4) * elements(call.output))


def rms_norm(call: Invocation) -> Work:
    """4 per element (square, mean, normalise, scale), 3 without learnt scale."""
    return Work(flops=(4 if call.has("weight") else 3) * elements(call.output))


def lstm(call: Invocation) -> Work:
    """Matrices x steps; 9 per unit and step: 5 non-linearities, 3 products, 1 sum."""
    return _recurrent(call, per_unit=9, gates=4)


def gru(call: Invocation) -> Work:
    """Matrices x steps; 9 per unit and step: 3 non-linearities, 3 products, 3 sums."""
    return _recurrent(call, per_unit=9, gates=3)


def rnn(call: Invocation) -> Work:
    """Matrices x steps; 1 non-linearity per unit and step."""
    return _recurrent(call, per_unit=1, gates=1)


def _recurrent(call: Invocation, per_unit: int, gates: int) -> Work:
    steps = elements(call.shape("input")[:-1])
    matrices = [shape for shape in call.tensors("params") if len(shape) == 2]
    # For each layer and direction: an input matrix, a hidden one and, with a projection, one back.
    units = sum((m[0] for m in matrices[:: _matrices_per_layer(call, matrices)]), ZERO) / gates
    return Work(macs=steps * sum((elements(m) for m in matrices), ZERO), flops=steps * units * per_unit)


def _matrices_per_layer(call: Invocation, matrices: Sequence[Shape]) -> int:
    layers = int(call.value("num_layers")) * (2 if call.value("bidirectional") else 1)
    return len(matrices) // layers


def einsum(call: Invocation) -> Work:
    """Pair by pair as PyTorch contracts them, from left to right or along the path given.

    A pair costs the product of all its sizes: in multiply-accumulates where something is contracted, in products where
    nothing is. A sum over one operand alone costs one per element.
    """
    shapes = list(call.tensors("tensors"))
    operands, output = _einsum_labels(str(call.value("equation")), shapes)
    sizes = _einsum_sizes(operands, shapes)
    path = call.arguments.get("path")
    order = path or [0, 1] * (len(operands) - 1)
    macs, flops = ZERO, ZERO
    for i, j in zip(order[::2], order[1::2], strict=True):
        right, left = (operands.pop(k) for k in sorted((i, j), reverse=True))
        later = set(output).union(*operands)
        left, flops = _sum_alone(left, set(right) | later, sizes, flops)
        right, flops = _sum_alone(right, set(left) | later, sizes, flops)
        union = left + "".join(label for label in right if label not in left)
        work = elements(sizes[label] for label in union)
        kept = "".join(label for label in union if label in later)
        macs, flops = (macs + work, flops) if kept != union else (macs, flops + work)
        operands.insert(len(operands) if path else 0, kept)
    _, flops = _sum_alone(operands[0], set(output), sizes, flops)
    return Work(macs=macs, flops=flops)


def _sum_alone(
    labels: str, needed: set[str], sizes: dict[str, sympy.Expr], flops: sympy.Expr
) -> tuple[str, sympy.Expr]:
    kept = "".join(label for label in labels if label in needed)
    return kept, flops if kept == labels else flops + elements(sizes[label] for label in labels)


def _einsum_labels(equation: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """Labels of each operand and of the output, an ellipsis spelt out in capital Greek."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    extra = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    longest = max((n for n, term in zip(extra, terms, strict=True) if "..." in term), default=0)
    greek = "".join(chr(0x391 + i) for i in range(longest))
    operands = [term.replace("...", greek[longest - n :]) for n, term in zip(extra, terms, strict=True)]
    if not arrow:
        joined = "".join(operands)
        output = "..." + "".join(sorted(x for x in set(joined) - set(greek) if joined.count(x) == 1))
    return operands, output.replace("...", greek)


def _einsum_sizes(operands: Sequence[str], shapes: Sequence[Shape]) -> dict[str, sympy.Expr]:
    sizes: dict[str, sympy.Expr] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            if sizes.get(label, sympy.Integer(1)) == 1:
                sizes[label] = size
    return sizes
