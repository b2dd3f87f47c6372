"""What each format does to each tensor, known from one pass of the model before any plan is evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import FormatError
from dovetail.evaluation.calibration import Calibration
from dovetail.evaluation.operands import Operands
from dovetail.evaluation.tensors import tensors_of
from dovetail.formats import Format
from dovetail.formats.carrier import work_dtype
from dovetail.graph import Graph
from dovetail.plan import Plan, Site, SiteKind

__all__ = ["NOISE_SAMPLES", "rounding_noise"]

NOISE_SAMPLES = 64
"""How many samples activations are rounded on: the first so many of the split."""

_DIGITS = 4  # kept of a ratio, so that what follows from it does not hang on the order of sums


def rounding_noise(
    graph: Graph, model: nn.Module, split: Split, calibration: Calibration, wanted: Mapping[Site, Sequence[Format]]
) -> dict[Site, tuple[float, ...] | None]:
    """The noise-to-signal ratio (1 / SQNR) of rounding the operands at each site to each format, at the model's widths.

    Of a weight or bias x, and of each sample x of an activation, it is `min(|Q(x) - x|^2 / |x|^2, 1)`; of an activation
    it is the mean over samples that are not all zero. 0: nothing is lost.

    Args:
        graph: the model's graph.
        model: the model in eval mode, on the device it runs on.
        split: where samples are taken from, as `sizing.place` gives it.
        calibration: where formats that need it read their range.
        wanted: the formats of each site.

    Returns:
        One ratio per format; None for a site that rounds nothing on these samples, or not to these formats.
    """
    parameters = _parameters(graph, model, wanted)
    concrete = _concrete(parameters, calibration, wanted)
    sums = {site: [0.0] * len(formats) for site, formats in concrete.items()}
    rows = dict.fromkeys(concrete, 0)

    def seen(site: Site, operand: Tensor) -> None:
        if operand.is_floating_point():
            lost, counted = _lost(operand, concrete[site], whole=site.kind is not SiteKind.DATA_IN)
            sums[site] = [total + more for total, more in zip(sums[site], lost, strict=True)]
            rows[site] += counted

    with torch.inference_mode():
        for site in concrete:
            if site in parameters:
                seen(site, parameters[site])
    samples = Operands(graph, model, split.take(NOISE_SAMPLES), weights="inherit", seed=0)
    samples.show((), [site for site in concrete if site.kind is SiteKind.DATA_IN], seen)
    return {site: _ratios(sums[site], rows[site]) if site in concrete else None for site in wanted}


def _parameters(graph: Graph, model: nn.Module, sites: Iterable[Site]) -> dict[Site, Tensor]:
    """The tensor of the model at each site that is no activation."""
    tensors = tensors_of(graph, model, ())
    found = {}
    for site in sites:
        operation = graph.operation(site.operation)
        name = {SiteKind.WEIGHT: operation.weight, SiteKind.BIAS: operation.bias}.get(site.kind)
        if name is not None:
            found[site] = tensors[name]
    return found


def _concrete(
    parameters: Mapping[Site, Tensor], calibration: Calibration, wanted: Mapping[Site, Sequence[Format]]
) -> dict[Site, list[Format]]:
    """Formats that can round, of each site of which all find their range."""
    calibration.prepare((site, fmt) for site, formats in wanted.items() if site not in parameters for fmt in formats)
    found = {}
    for site, formats in wanted.items():
        try:
            if site in parameters:
                found[site] = [fmt.calibrate(parameters[site]) for fmt in formats]
            else:
                found[site] = [calibration.resolve(Plan.of({site: fmt})).precision.get(site, fmt) for fmt in formats]
        except FormatError:
            continue
    return found


def _lost(x: Tensor, formats: Sequence[Format], *, whole: bool) -> tuple[list[float], int]:
    """Per format, the sum of the ratios of x's rows, or of all of it as one; and how many rows count."""

    def power(x: Tensor) -> Tensor:
        rows = x.reshape(1 if whole or x.ndim < 2 else len(x), -1)
        norm: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        return norm.square()

    wide = x.to(work_dtype(x))
    signal = power(wide)
    counts = signal > 0
    lost = [
        float((power(fmt.quantise(x).to(wide.dtype) - wide)[counts] / signal[counts]).clamp(max=1.0).sum())
        for fmt in formats
    ]
    return lost, int(counts.sum())


def _ratios(sums: Sequence[float], rows: int) -> tuple[float, ...] | None:
    if not rows or not all(map(math.isfinite, sums)):
        return None
    return tuple(float(f"{total / rows:.{_DIGITS}g}") for total in sums)
