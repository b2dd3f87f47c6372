"""Evaluation: (graph, plans, data) -> scores."""

from __future__ import annotations

from dovetail.evaluation.metrics import METRICS, Metric, MetricSet
from dovetail.evaluation.score import Measured, Outcome, Score

__all__ = ["METRICS", "Measured", "Metric", "MetricSet", "Outcome", "Score"]
