"""What each cost is: the literal table COSTS, and the terms behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from dovetail.costs.ledger import Ledger, weight_storages
from dovetail.costs.terms import Count, Term
from dovetail.costs.work import elements

__all__ = ["COSTS", "CostDefinition", "Direction", "Peak", "Ratio", "Sum"]

Direction = Literal["minimize", "maximize"]
Terms = Callable[[Ledger], Iterable[Term]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A cost that is a sum over operations: additive.

    Args:
        unit: of its value.
        formula: in words.
        terms: what is summed.
        divisor: what the sum is divided by: 8 from bits to bytes.
        counts_work: whether it rests on counting rules, so that operations without one are missing from it.
        direction: which way is better.
    """

    unit: str
    formula: str
    terms: Terms
    divisor: int = 1
    counts_work: bool = False
    direction: Direction = "minimize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A cost that is a quotient of two sums.

    Args:
        unit: of its value.
        formula: in words.
        above: what is summed above the line.
        below: what is summed below it. Where that is nothing, the ratio is 0 / 0: not a number.
        factor: what the quotient is multiplied by.
        counts_work: as for `Sum`.
        direction: which way is better.
    """

    unit: str
    formula: str
    above: Terms
    below: Terms
    factor: int = 1
    counts_work: bool = False
    direction: Direction = "minimize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The largest sum of activations alive at one operation: each from its making to its last reading.

    Args:
        unit: of its value.
        formula: in words.
        divisor: what the sum is divided by.
        direction: which way is better.
    """

    unit: str
    formula: str
    divisor: int = 1
    counts_work: bool = False
    direction: Direction = "minimize"


CostDefinition = Sum | Ratio | Peak


def parameter_terms(ledger: Ledger) -> Iterable[Term]:
    """Elements of every parameter, tied and shared ones once."""
    return (Count(stored.operation, elements(stored.shape)) for stored in ledger.parameters.values())


def parameter_bits(ledger: Ledger) -> Iterable[Term]:
    """Bits of every parameter in the widest format that reads it."""
    return ledger.parameters.values()


def macs_terms(ledger: Ledger) -> Iterable[Term]:
    """Multiply-accumulates of matrix products and convolutions."""
    return (Count(e.name, e.work.macs) for e in ledger.entries if e.work and e.work.macs != 0)


def matmul_flops(ledger: Ledger) -> Iterable[Term]:
    """Two per multiply-accumulate."""
    return (Count(e.name, 2 * e.work.macs) for e in ledger.entries if e.work and e.work.macs != 0)


def flops_terms(ledger: Ledger) -> Iterable[Term]:
    """Two per multiply-accumulate, and the rest by rule."""
    for entry in ledger.entries:
        if entry.work and (count := 2 * entry.work.macs + entry.work.flops) != 0:
            yield Count(entry.name, count)


def weight_bits(ledger: Ledger) -> Iterable[Term]:
    """Bits of the weights of operations with multiply-accumulates."""
    return weight_storages(ledger)


def weight_elements(ledger: Ledger) -> Iterable[Term]:
    """Elements of those weights."""
    for stored in weight_storages(ledger):
        yield Count(stored.operation, elements(stored.shape))


def bit_operations(ledger: Ledger) -> Iterable[Term]:
    """Multiply-accumulates times the bits of both operands' elements."""
    for entry in ledger.entries:
        if entry.work and entry.work.macs != 0:
            yield Count(entry.name, entry.work.macs, (entry.weight if entry.parameter else entry.data, entry.data))


def activation_bits(ledger: Ledger) -> Iterable[Term]:
    """Bits of every tensor that comes in or is made."""
    return (activation.tensor for activation in ledger.activations)


def traffic_bits(ledger: Ledger) -> Iterable[Term]:
    """Bits of every tensor that each operation reads and writes."""
    return (tensor for entry in ledger.entries for tensor in (*entry.reads, *entry.writes))


COSTS: dict[str, CostDefinition] = {
    "params": Sum(
        unit="parameters",
        formula="sum over parameters of their elements; tied and shared ones once, buffers not",
        terms=parameter_terms,
    ),
    "model_bytes": Sum(
        unit="bytes",
        formula="sum over parameters of their bits in their formats (float32 where none), shared scales included, / 8",
        terms=parameter_bits,
        divisor=8,
    ),
    "macs": Sum(
        unit="MACs", formula="sum over linear, convolutions and matrix products", terms=macs_terms, counts_work=True
    ),
    "flops": Sum(
        unit="FLOPs",
        formula="2 x MACs (no biases), BatchNorm 2 and activation 1 per element, others by rule; batch included",
        terms=flops_terms,
        counts_work=True,
    ),
    "flops_matmul": Sum(
        unit="FLOPs",
        formula="2 x MACs, as torch.utils.flop_counter counts; batch included",
        terms=matmul_flops,
        counts_work=True,
    ),
    "weight_bits": Sum(
        unit="bits",
        formula="sum over weights of operations with MACs of their bits, shared scales included",
        terms=weight_bits,
        counts_work=True,
    ),
    "average_bitwidth": Ratio(
        unit="bits",
        formula="weight bits / weight elements",
        above=weight_bits,
        below=weight_elements,
        counts_work=True,
    ),
    "memory_density": Ratio(
        unit="x float32",
        formula="32 / average bitwidth",
        above=weight_elements,
        below=weight_bits,
        factor=32,
        counts_work=True,
        direction="maximize",
    ),
    "bops": Sum(
        unit="BitOPs",
        formula="sum over MACs of weight bits x data_in bits (data_in bits squared for two activations)",
        terms=bit_operations,
        counts_work=True,
    ),
    "activation_bytes": Sum(
        unit="bytes",
        formula="sum over inputs and results of their bits in the widest format that reads them / 8; batch included",
        terms=activation_bits,
        divisor=8,
    ),
    "peak_activation_bytes": Peak(
        unit="bytes",
        formula="largest sum of activations alive at one operation, in the graph's order; batch included",
        divisor=8,
    ),
    "memory_traffic_bytes": Sum(
        unit="bytes",
        formula="sum over operations of bits read (activations, parameters, buffers) and written / 8; batch included",
        terms=traffic_bits,
        divisor=8,
    ),
    "arithmetic_intensity": Ratio(
        unit="FLOPs/byte",
        formula="FLOPs / memory traffic in bytes",
        above=flops_terms,
        below=traffic_bits,
        factor=8,
        counts_work=True,
        direction="maximize",
    ),
}
