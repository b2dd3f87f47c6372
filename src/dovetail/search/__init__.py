"""Searching: what a candidate may be, what is asked of it, and who proposes the next one."""

from __future__ import annotations

from dovetail.search.problem import Constraint, Objective, Price, Problem
from dovetail.search.space import Decision, PrecisionRule, Row, Rows, Space, WidthRule, build_space

__all__ = [
    "Constraint",
    "Decision",
    "Objective",
    "PrecisionRule",
    "Price",
    "Problem",
    "Row",
    "Rows",
    "Space",
    "WidthRule",
    "build_space",
]
