"""A model as operations, sites, width groups and symbolic shapes, read off PyTorch's own exporter."""

from dovetail.graph.attributes import SizeAttribute
from dovetail.graph.cache import default_folder
from dovetail.graph.calls import Call, CallMode
from dovetail.graph.graph import Graph
from dovetail.graph.groups import Member, WidthGroup
from dovetail.graph.operation import Operation
from dovetail.graph.trace import trace

__all__ = [
    "Call",
    "CallMode",
    "Graph",
    "Member",
    "Operation",
    "SizeAttribute",
    "WidthGroup",
    "default_folder",
    "trace",
]
