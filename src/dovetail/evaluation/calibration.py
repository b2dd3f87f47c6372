"""Formats whose range is read off data, made concrete: statistics of the float model, gathered once for all plans."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import FormatError
from dovetail.evaluation.operands import Operands
from dovetail.evaluation.tensors import Widths
from dovetail.formats import Format
from dovetail.formats.statistics import Statistics
from dovetail.graph import Graph
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms import Weights

__all__ = ["CALIBRATION_SAMPLES", "Calibration"]

CALIBRATION_SAMPLES = 512
"""How many samples statistics are gathered on: the first so many of the calibration split."""

Wanted = tuple[Site, int | None]


class Calibration:
    """Makes plans concrete: the formats of activations that are still to be calibrated get their range.

    A site's statistics are those of all its operands in the model without any format, at the plan's widths. Weights and
    biases are calibrated on themselves where they are rounded.

    Args:
        graph: the model's graph.
        model: the model in eval mode, on the device it runs on.
        split: where the samples are taken from, as `sizing.place` gives it.
        weights, seed: as for `resize`.
    """

    def __init__(self, graph: Graph, model: nn.Module, split: Split, *, weights: Weights, seed: int) -> None:
        self._operands = Operands(graph, model, split.take(CALIBRATION_SAMPLES), weights=weights, seed=seed)
        self._found: dict[tuple[Widths, Wanted], Statistics] = {}

    def resolve(self, plan: Plan) -> Plan:
        """The plan with every activation's format concrete.

        Raises:
            FormatError: A range cannot be read off the statistics, or there are none.
        """
        open_formats = {
            site: fmt for site, fmt in plan.formats if site.kind is SiteKind.DATA_IN and fmt.needs_calibration
        }
        if not open_formats:
            return plan
        self.prepare(open_formats.items(), plan.widths)
        for site, axis in _wanted(open_formats.items()):
            if (plan.widths, (site, axis)) not in self._found:
                raise FormatError(
                    f"site {site}: must be computed on some of the {len(self._operands)} calibration samples to have "
                    "its range read off them, and the model's code never came by it. Give it a format with a fixed "
                    "range."
                )
        concrete = {
            site: fmt.calibrate(self._found[plan.widths, (site, _axis(fmt))]) for site, fmt in open_formats.items()
        }
        return Plan.of({**plan.precision, **concrete}, dict(plan.widths))

    def prepare(self, formats: Iterable[tuple[Site, Format]], widths: Widths = ()) -> None:
        """Gather what the range of each format at its site will be read off, all in one pass of the model.

        Args:
            formats: (site of the kind `data_in`, format) pairs; concrete formats need nothing.
            widths: of the model.
        """
        axes: dict[Site, list[int | None]] = {}
        for site, axis in _wanted(formats):
            if (widths, (site, axis)) not in self._found:
                axes.setdefault(site, []).append(axis)

        def seen(site: Site, operand: Tensor) -> None:
            for axis in axes[site]:
                found, key = Statistics.of(operand, axis), (widths, (site, axis))
                self._found[key] = self._found[key] + found if key in self._found else found

        self._operands.show(widths, list(axes), seen)


def _wanted(formats: Iterable[tuple[Site, Format]]) -> list[Wanted]:
    """The statistics that formats need, each once."""
    return list(dict.fromkeys((site, _axis(fmt)) for site, fmt in formats if fmt.needs_calibration))


def _axis(fmt: Format) -> int | None:
    axis = getattr(fmt, "axis", None)
    return axis if isinstance(axis, int) else None
