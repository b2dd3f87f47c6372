"""Costs: figures that follow from a graph and a plan alone, one plan or a million at a time; and measured latency.

`COSTS` is the table of costs, `RULES` the table of what calls of operators count.
"""

from dovetail.costs.definitions import COSTS, CostDefinition, Direction, Peak, Ratio, Sum
from dovetail.costs.latency import Latency, measure_latency
from dovetail.costs.model import Cost, CostModel
from dovetail.costs.profile import ProfileRow, profile
from dovetail.costs.rules import RULES, register_rule, rule_for
from dovetail.costs.work import Invocation, Rule, Work, elements

__all__ = [
    "COSTS",
    "RULES",
    "Cost",
    "CostDefinition",
    "CostModel",
    "Direction",
    "Invocation",
    "Latency",
    "Peak",
    "ProfileRow",
    "Ratio",
    "Rule",
    "Sum",
    "Work",
    "elements",
    "measure_latency",
    "profile",
    "register_rule",
    "rule_for",
]
