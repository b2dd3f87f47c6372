"""Transforms: (graph, model, plan) -> new model. The user's model is read, never changed."""

from __future__ import annotations

from torch import nn

from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.transforms.importance import IMPORTANCE, Importance, find_importance
from dovetail.transforms.inherit import GroupChange, inheritance_report
from dovetail.transforms.observe import observe
from dovetail.transforms.quantise import QuantisedModel, quantise
from dovetail.transforms.resize import Inherit, Weights, resize

__all__ = [
    "IMPORTANCE",
    "GroupChange",
    "Importance",
    "Inherit",
    "QuantisedModel",
    "Weights",
    "apply",
    "find_importance",
    "inheritance_report",
    "observe",
    "quantise",
    "resize",
]


def apply(
    graph: Graph,
    model: nn.Module,
    plan: Plan,
    *,
    weights: Weights = "inherit",
    seed: int = 0,
) -> nn.Module:
    """The model of a plan: resized, then quantised.

    Args:
        graph: the model's graph.
        model: the model that the graph was traced from; it is not changed.
        plan: formats and widths.
        weights: "inherit", `Inherit(ranking)` or "initialise", see `resize`.
        seed: for whatever is drawn.

    Returns:
        A `QuantisedModel` where the plan has formats, otherwise a module of the user's own class.

    Raises:
        UnknownSiteError, PlanError: The plan does not fit the graph.
        FormatError: The format of an activation is still to be calibrated.
        ResizeError: The model is not the one that the graph describes.
    """
    resized = resize(graph, model, plan, weights=weights, seed=seed)
    return quantise(graph, resized, plan) if plan.formats else resized
