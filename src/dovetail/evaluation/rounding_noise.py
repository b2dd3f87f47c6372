"""What each format does to each tensor, known from one pass of the model before any plan is evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import FormatError
from dovetail.evaluation.calibration import Calibration
from dovetail.evaluation.operands import Operands
from dovetail.formats import Format
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
    sums = {site: [(0.0, 0)] * len(formats) for site, formats in wanted.items()}
    concrete = {site: _concrete(model, graph, calibration, site, formats) for site, formats in wanted.items()}

    def seen(site: Site, operand: Tensor) -> None:
        if not operand.is_floating_point():
            return
        for place, fmt in enumerate(concrete[site] or ()):
            total, rows = sums[site][place]
            more, these = _lost(operand, fmt, whole=site.kind is not SiteKind.DATA_IN)
            sums[site][place] = total + more, rows + these

    with torch.inference_mode():
        for site in wanted:
            if (parameter := _parameter(model, graph, site)) is not None:
                seen(site, parameter)
    samples = Operands(graph, model, split.take(NOISE_SAMPLES), weights="inherit", seed=0)
    samples.show((), [site for site in wanted if site.kind is SiteKind.DATA_IN and concrete[site]], seen)
    return {site: _ratios(its) for site, its in sums.items()}


def _concrete(
    model: nn.Module, graph: Graph, calibration: Calibration, site: Site, formats: Sequence[Format]
) -> list[Format] | None:
    """Formats that can round; None where one of them finds no range."""
    parameter = _parameter(model, graph, site)
    try:
        if parameter is not None:
            return [fmt.calibrate(parameter) if fmt.needs_calibration else fmt for fmt in formats]
        return [calibration.resolve(Plan.of({site: fmt})).precision.get(site, fmt) for fmt in formats]
    except FormatError:
        return None


def _parameter(model: nn.Module, graph: Graph, site: Site) -> Tensor | None:
    """The tensor of the model at a site; None for an activation."""
    if site.kind is SiteKind.DATA_IN:
        return None
    operation = graph.operation(site.operation)
    name = operation.weight if site.kind is SiteKind.WEIGHT else operation.bias
    named = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return named[name].detach() if name is not None and name in named else None


def _lost(x: Tensor, fmt: Format, *, whole: bool) -> tuple[float, int]:
    """The sum of the ratios of x's rows, or of all of it as one, and how many rows count."""
    rows = x.double().reshape(1 if whole or x.ndim < 2 else len(x), -1)
    noise = (fmt.quantise(x).double().reshape(rows.shape) - rows).square().sum(1)
    signal = rows.square().sum(1)
    counts = signal > 0
    ratios = (noise[counts] / signal[counts]).clamp(max=1.0)
    return float(ratios.sum()), int(counts.sum())


def _ratios(sums: Sequence[tuple[float, int]]) -> tuple[float, ...] | None:
    ratios = [total / rows if rows else math.nan for total, rows in sums]
    return tuple(float(f"{ratio:.{_DIGITS}g}") for ratio in ratios) if all(map(math.isfinite, ratios)) else None
