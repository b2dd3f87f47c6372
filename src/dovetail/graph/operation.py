"""An operation: one node that a model computes, and the sites at which it can be given number formats."""

from __future__ import annotations

from dataclasses import dataclass

from dovetail.graph.calls import Call
from dovetail.plan import Site, SiteKind

__all__ = ["Operation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One node of the graph.

    Args:
        name: module path (`seq_blocks.2`) when it is the one main operation of a leaf module (`relu#1` for the second
            call of a shared one), else the graph node's name.
        type: what it computes: `linear`, `conv2d`, `batch_norm`, `relu`, `add`, `matmul`, ...
        node: name of its node in the graph's module.
        sites: tensors that can be given a format; `data_in` covers every floating-point operand that is not a
            parameter.
        weight: name of the parameter that is its weight, or None.
        bias: name of the parameter that is its bias, or None.
        module: path of the module whose code computes it; empty for the model itself, None where unknown.
        call: where the model's code computes it, or None where no call computes it alone.
        no_sites: why there are no sites, or None.
    """

    name: str
    type: str
    node: str
    sites: tuple[SiteKind, ...]
    weight: str | None
    bias: str | None
    module: str | None
    call: Call | None
    no_sites: str | None = None

    @property
    def all_sites(self) -> tuple[Site, ...]:
        """The sites, as plans name them."""
        return tuple(Site(self.name, kind) for kind in self.sites)
