"""See what a model's operations compute with: the operands that formats of activations would round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from dovetail.graph import Call, CallMode, Graph
from dovetail.plan import Site
from dovetail.transforms.operands import is_activation

__all__ = ["observe"]


def observe(
    graph: Graph, model: nn.Module, sites: Iterable[Site], inputs: tuple[Any, ...], seen: Callable[[Site, Tensor], None]
) -> None:
    """Run a model and show every operand of its operations at these sites, right before each operation.

    Args:
        graph: the model's graph.
        model: the model; it runs its own code, whatever path that takes.
        sites: of the kind `data_in`.
        inputs: what to run it on.
        seen: told of each operand; a site that the code does not come by has none.

    Example:
        >>> import torch
        >>> from dovetail.graph import trace
        >>> from dovetail.plan import SiteKind
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> graph = trace(model, (torch.zeros(2, 2),))
        >>> found = []
        >>> observe(graph, model, [Site("0", SiteKind.DATA_IN)], (torch.ones(1, 2),), lambda _, x: found.append(x))
        >>> found
        [tensor([[1., 1.]])]
    """
    by_call = {call: site for site in sites if (call := graph.operation(site.operation).call) is not None}

    def show(site: Site, function: Callable[..., Any], place: int | str, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for member in value:
                show(site, function, place, member)
        elif is_activation(function, place, value):
            seen(site, value)

    def shown(call: Call, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        site = by_call[call]
        for position, value in enumerate(args):
            show(site, function, position, value)
        for name, value in kwargs.items():
            show(site, function, name, value)
        return function(*args, **kwargs)

    with CallMode(model, shown, wanted=by_call):
        model(*inputs)
