"""Evaluation: (graph, plans, data) -> scores."""

from __future__ import annotations

from dovetail.evaluation.cache import CacheStatistics
from dovetail.evaluation.calibration import CALIBRATION_SAMPLES, Calibration
from dovetail.evaluation.memory import default_budget, free_memory
from dovetail.evaluation.metrics import METRICS, Metric, MetricSet
from dovetail.evaluation.ptq import PtqEvaluator
from dovetail.evaluation.racing import RacingEvaluator
from dovetail.evaluation.reference import ReferenceEvaluator
from dovetail.evaluation.score import Measured, Outcome, Score

__all__ = [
    "CALIBRATION_SAMPLES",
    "METRICS",
    "CacheStatistics",
    "Calibration",
    "Measured",
    "Metric",
    "MetricSet",
    "Outcome",
    "PtqEvaluator",
    "RacingEvaluator",
    "ReferenceEvaluator",
    "Score",
    "default_budget",
    "free_memory",
]
