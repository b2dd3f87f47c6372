"""What a model that cannot be exported is told: the line at fault, and what to change there."""

from __future__ import annotations

from torch import nn

from dovetail.errors import TraceError
from dovetail.graph.export import FixedBatchError
from dovetail.graph.lines import error_line

__all__ = ["explain", "fault_line"]

# What the exporter's errors say -> what is the matter and the way out; the first that is found counts.
_ADVICE = (
    (
        ("FixedBatchError",),
        "its code makes a constant of the batch, which is the first dimension of every input",
        "use sizes as tensors have them (`x.shape[0]`, without `int()`, `range()` or NumPy), or leave one size to "
        "`-1` or `flatten`",
    ),
    (
        ("GuardOnDataDependentSymNode", "data-dependent", "Could not guard", "Could not extract specialized integer"),
        "its control flow or a size depends on the values of a tensor",
        "write it without reading values: torch.where in the place of `if`, a fixed size for a measured one",
    ),
    (
        (".item()", "_local_scalar_dense", "item() cannot", "bool(tensor)", "aten._local_scalar_dense"),
        "it reads a value out of a tensor (`.item()`, `float(x)`, `bool(x)`, `if x > 0`)",
        "keep the value in a tensor, or compute it once in `__init__`",
    ),
    (
        (".numpy()", "numpy", "to_numpy", ".tolist()"),
        "it leaves torch for NumPy or Python lists",
        "use the torch function of the same name",
    ),
    (
        ("must return a tensor",),
        "its output has no tensor",
        "return a tensor, or a tuple or mapping whose first tensor is the result",
    ),
    (
        ("takes", "missing", "positional argument", "unexpected keyword"),
        "the example inputs are not what its forward takes",
        "pass example inputs in the order of forward's arguments",
    ),
)


def fault_line(model: nn.Module, error: BaseException) -> str:
    """The line of the model's code at fault for an error of the exporter; the model's class where it is not known."""
    line = error.line if isinstance(error, FixedBatchError) else error_line(error)
    return line or type(model).__name__


def explain(model: nn.Module, error: Exception) -> TraceError:
    """The error to raise for a model that the exporter refuses.

    Args:
        model: the user's model.
        error: what the exporter raised.
    """
    text = f"{type(error).__name__}: {error}"
    matter, way_out = next(
        ((m, w) for signs, m, w in _ADVICE if any(sign in text for sign in signs)),
        ("the exporter does not follow it", "try `torch.export.export` on it, which says more; simplify that line"),
    )
    where = fault_line(model, error)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return TraceError(f"{where}: the model cannot be exported as a graph: {matter}. Got {first!r}. To do: {way_out}.")
