"""Trace a model: export it, and read operations, sites, shapes and width groups off the exported graph."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.export._trace
from torch import Tensor, nn

from dovetail.errors import TraceError
from dovetail.graph.attributes import read_attributes
from dovetail.graph.cache import graph_key, load_graph, save_graph
from dovetail.graph.collect import find_widths, public, read_groups
from dovetail.graph.divide import divide
from dovetail.graph.export import Exported, shadow, symbolic_export
from dovetail.graph.failure import explain, fault_line
from dovetail.graph.flat import flatten_program
from dovetail.graph.graph import Graph
from dovetail.graph.name import name_operations
from dovetail.graph.probe import fake_run, probe, rehearsal
from dovetail.graph.record import record_graph
from dovetail.graph.steady import differing_calls, without_sites

__all__ = ["trace"]

logger = logging.getLogger("dovetail")


def trace(
    model: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Graph:
    """The graph of a model in eval mode. The model is read, never changed.

    A model that cannot be exported but runs has the graph of one run on the example inputs (`Graph.obstacle` says why,
    and so does a warning): its precision can be searched, its widths cannot. Such a graph follows from values and is
    not cached.

    Args:
        model: any module that takes tensors and returns a tensor, or a tuple, mapping or dataclass whose first tensor
            counts.
        inputs: example inputs, as the model takes them; the first dimension of each tensor is the batch.
        kwargs: example keyword inputs.
        cache: folder of graphs exported before (`dovetail.graph.default_folder()`), or None to export anew.
        progress: told what is being done, once it has taken a second.

    Raises:
        TraceError: The model can neither be exported nor run on the example inputs; the message names the line at fault
            and what to change.

    Example:
        >>> import torch
        >>> graph = trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.zeros(2, 4),))
        >>> [(group.name, group.base, group.frozen) for group in graph.groups]
        [('0', 8, None), ('2', 2, "its channels are the model's output")]
    """
    keywords = dict(kwargs or {})
    key = graph_key(model, tuple(inputs), keywords) if cache is not None else ""
    if cache is not None and (known := load_graph(cache, key)) is not None:
        return known
    with _told(progress, f"exporting the graph of {type(model).__name__}"):
        copied = shadow(model)
        examples = batched((*inputs, *keywords.values()))
        keywords = dict(zip(keywords, examples[len(inputs) :], strict=True))
        graph = exported_or_recorded(model, copied, examples[: len(inputs)], keywords)
    if cache is not None and graph.obstacle is None:
        save_graph(cache, key, graph)
    return graph


@contextmanager
def _told(progress: Callable[[str], None] | None, text: str) -> Iterator[None]:
    if progress is None:
        yield
        return
    timer = threading.Timer(1.0, progress, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def exported_or_recorded(
    model: nn.Module, copied: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Graph:
    """The graph of an export; where there is none, of one run.

    Raises:
        TraceError: The model does not run either.
    """
    try:
        return read_graph(model, exported_or_explained(model, copied, inputs, kwargs), inputs, kwargs)
    except TraceError as error:
        obstacle = error
    try:
        with quiet():
            line = fault_line(model, obstacle.__cause__ or obstacle)
            graph = record_graph(shadow(model), inputs, kwargs, str(obstacle), line)
    except Exception as error:  # whatever the model raises on its inputs, what keeps it from being exported is told
        raise obstacle from error
    for note in graph.notes:
        logger.warning(note)
    return graph


def exported_or_explained(
    model: nn.Module, copied: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Exported:
    """The export with symbolic channels; where that fails, with all widths as constants, which can still be quantised.

    Raises:
        TraceError: Neither works.
    """
    try:
        with quiet():
            return symbolic_export(copied, inputs, kwargs)
    except Exception as error:  # the exporter raises whatever the model's code and its own checks raise
        first = error
    try:
        with quiet():
            exported = symbolic_export(shadow(model), inputs, kwargs, constant=True)
    except Exception as error:
        raise explain(model, error) from error
    logger.warning("widths stay as they are: %s", explain(model, first))
    return exported


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter logs a traceback for what it then raises, and prints the graph so far; the error is enough."""
    loggers = [logging.getLogger(name) for name in ("torch._export", "torch._subclasses", "torch.export", "torch.fx")]
    states = [log.disabled for log in loggers]
    children = [
        log
        for name, log in logging.root.manager.loggerDict.items()
        if isinstance(log, logging.Logger) and name.startswith(("torch._export", "torch._subclasses", "torch.fx"))
    ]
    loggers += children
    states += [log.disabled for log in children]
    for log in loggers:
        log.disabled = True
    exporter: Any = torch.export._trace
    exporter.print = lambda *_, **__: None  # its module's own name, before the builtin one
    try:
        yield
    finally:
        vars(exporter).pop("print", None)
        for log, state in zip(loggers, states, strict=True):
            log.disabled = state


def read_graph(model: nn.Module, exported: Exported, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
    """The graph that an export of a model on example inputs describes."""
    divided = divide(flatten_program(exported, model))
    operations = without_sites(
        name_operations(divided.flat, model),
        differing_calls(shadow(model), inputs, kwargs, exported.calls),
        "the model's code makes other calls when it runs than when it is exported",
    )
    widths = find_widths(divided, operations)
    flat = public(divided.flat, widths)
    attributes = read_attributes(model, flat, exported.heads)
    with quiet():
        groups = probe(read_groups(flat, widths, operations), partial(fake_run, flat))
        groups = probe(groups, rehearsal(model, flat, attributes, inputs, kwargs))
    return Graph(
        module=flat.module,
        operations=operations,
        groups=groups,
        parameters={name: flat.tensor_shape(name) for name in flat.parameters},
        buffers={name: flat.tensor_shape(name) for name in flat.tensor_names if name not in flat.parameters},
        shapes=flat.shapes,
        dtypes=flat.dtypes,
        bindings=flat.bindings,
        batch=flat.batch,
        tensor_names=flat.tensor_names,
        num_inputs=flat.num_inputs,
        sizes=flat.sizes,
        attributes=attributes,
    )


def batched(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with a batch of two where it is one: the exporter takes a size of one for a constant."""
    return tuple(
        x.repeat(2, *[1] * (x.ndim - 1)) if isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == 1 else x
        for x in inputs
    )
