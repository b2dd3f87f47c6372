"""Quantise a model: the user's own code, run with rounded operands at the sites that a plan names."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dovetail.errors import FormatError, PlanError
from dovetail.formats import Format, fake_quantise
from dovetail.graph import Call, CallMode, Graph
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms.operands import is_activation, is_written

__all__ = ["QuantisedModel", "quantise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormats:
    """The formats of one call's operands.

    Args:
        data_in: format of every floating-point operand that is no parameter, or None to leave them alone.
        weight: name of the parameter that is the operation's weight.
        weight_format: its format, or None.
        bias: name of the parameter that is the operation's bias.
        bias_format: its format, or None.
    """

    data_in: Format | None
    weight: str | None
    weight_format: Format | None
    bias: str | None
    bias_format: Format | None


def quantise(graph: Graph, model: nn.Module, plan: Plan) -> QuantisedModel:
    """A copy of a model that computes with the formats of a plan.

    Each named operand is rounded right before its operation, and the operation itself runs as the model's code has
    it. A linear layer with all three sites computes, to the bit,

        F.linear(q_data(x), q_weight(w), q_bias(b))

    In training, gradients pass the rounding straight through (`fake_quantise`), and the parameters stay in full
    precision.

    Args:
        graph: the graph of the model, or of the model that this one was resized from.
        model: the model; it is not changed.
        plan: formats per site; widths play no part here.

    Returns:
        The quantised model, in the mode (training or eval) that the model is in.

    Raises:
        UnknownSiteError: The plan names a site that the graph lacks.
        FormatError: The format of an activation is still to be calibrated.

    Example:
        >>> import torch
        >>> from dovetail.formats import parse
        >>> from dovetail.graph import trace
        >>> base = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> plan = Plan.of({Site("0", SiteKind.WEIGHT): parse("fixed(8,4)")})
        >>> quantised = quantise(trace(base, (torch.zeros(2, 4),)), base, plan)
        >>> x = torch.ones(2, 4)
        >>> by_hand = torch.relu(nn.functional.linear(x, parse("fixed(8,4)").quantise(base[0].weight), base[0].bias))
        >>> torch.equal(quantised(x), by_hand)
        True
    """
    graph.check(Plan(plan.formats))
    copied = copy.deepcopy(model)
    return QuantisedModel(copied, _formats_by_call(graph, copied, plan), may_miss=not graph.is_replayable)


def _formats_by_call(graph: Graph, model: nn.Module, plan: Plan) -> dict[Call, CallFormats]:
    precision = plan.precision
    found: dict[Call, CallFormats] = {}
    for operation in graph.operations:
        formats = {kind: precision.get(Site(operation.name, kind)) for kind in operation.sites}
        if all(fmt is None for fmt in formats.values()):
            continue
        if operation.call is None:
            raise PlanError(
                f"operation {operation.name!r}: must be computed by one call of the model's code to be quantised."
            )
        data_in = formats.get(SiteKind.DATA_IN)
        if data_in is not None and data_in.needs_calibration:
            raise FormatError(
                f"site {Site(operation.name, SiteKind.DATA_IN)}: format {data_in} must be calibrated on data before it "
                "can round activations; calibrate it on observed values (Format.calibrate) and plan what this gives."
            )
        found[operation.call] = CallFormats(
            data_in=data_in,
            weight=operation.weight,
            weight_format=_calibrated(model, operation.weight, formats.get(SiteKind.WEIGHT)),
            bias=operation.bias,
            bias_format=_calibrated(model, operation.bias, formats.get(SiteKind.BIAS)),
        )
    return found


def _calibrated(model: nn.Module, name: str | None, fmt: Format | None) -> Format | None:
    """The concrete format of a parameter: its range is known, it is the parameter's own."""
    if fmt is None or name is None or not fmt.needs_calibration:
        return fmt
    return fmt.calibrate(_tensor(model, name).detach())


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    found = getattr(model.get_submodule(path), leaf)
    if not isinstance(found, Tensor):
        raise PlanError(f"model: {name!r} must be a tensor as in the traced model, got {type(found).__name__}.")
    return found


class QuantisedModel(nn.Module):
    """A model run with rounded operands; made by `quantise`.

    Its parameters, buffers, children and state dict are the model's, under the model's names: a checkpoint of one
    loads into the other. It trains, copies and saves like any module.

    Args:
        base: the model to run; owned by the quantised model from here on.
        formats: what to round, per call of the model's code.
        may_miss: whether the code may take other ways than the one that was traced, without a warning.
    """

    def __init__(self, base: nn.Module, formats: Mapping[Call, CallFormats], *, may_miss: bool = False):
        super().__init__()
        # The very dictionaries of the base: what is registered, moved or swapped here is so there. The base itself is
        # no child, so that no name gains a prefix.
        self._parameters = base._parameters
        self._buffers = base._buffers
        self._modules = base._modules
        self._non_persistent_buffers_set = base._non_persistent_buffers_set
        object.__setattr__(self, "base", base)
        self.formats = dict(formats)
        self.may_miss = may_miss
        self.training = base.training

    base: nn.Module
    """The model that is run: the user's class, with the parameters that are trained."""

    def train(self, mode: bool = True) -> QuantisedModel:
        self.training = mode
        self.base.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.base.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.base.load_state_dict(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        missed = set(self.formats)

        def rounded(call: Call, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            missed.discard(call)
            return self._call(self.formats[call], function, args, kwargs)

        with CallMode(self.base, rounded, wanted=self.formats):
            result = self.base(*args, **kwargs)
        if missed and not self.may_miss:
            warnings.warn(
                f"{len(missed)} of {len(self.formats)} quantised calls were not made in a forward, {min(missed)} among "
                "them: the code took another way than when it was traced, and what it did instead is not quantised.",
                stacklevel=2,
            )
        return result

    def _call(
        self, formats: CallFormats, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        weight = _tensor(self.base, formats.weight) if formats.weight is not None else None
        bias = _tensor(self.base, formats.bias) if formats.bias is not None else None

        def rounded(value: Any, place: int | str) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(rounded(item, place) for item in value)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            if value is weight:
                fmt = formats.weight_format
            elif value is bias:
                fmt = formats.bias_format
            elif is_activation(function, place, value):
                fmt = formats.data_in
            else:
                fmt = None
            return value if fmt is None else fake_quantise(value, fmt)

        new_args = tuple(rounded(value, place) for place, value in enumerate(args))
        new_kwargs = {name: rounded(value, name) for name, value in kwargs.items()}
        result = function(*new_args, **new_kwargs)
        target = args[0] if args else kwargs.get("input")
        used = new_args[0] if args else new_kwargs.get("input")
        if used is not target and isinstance(target, Tensor) and is_written(function, args, kwargs):
            # The code may read the tensor that it asked to overwrite under another name.
            return target.copy_(result)
        return result
