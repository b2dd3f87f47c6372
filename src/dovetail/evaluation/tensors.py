"""The tensors of the model at planned widths, and the sizes that are no tensor's own, numbered by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dovetail.evaluation.numbering import Numbering
from dovetail.evaluation.program import Program
from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.transforms import Weights, resize

__all__ = ["ModelTensors", "tensors_of"]

Widths = tuple[tuple[str, int], ...]


def tensors_of(
    graph: Graph, model: nn.Module, widths: Widths, *, weights: Weights = "inherit", seed: int = 0
) -> dict[str, Tensor]:
    """Parameters and buffers of the model at these widths, as `transforms.resize` gives them."""
    if widths:
        resized = resize(graph, model, Plan((), widths), weights=weights, seed=seed)
        model = resized
    found: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: found[name].detach() for name in graph.tensor_names}


class ModelTensors:
    """Gives the program's tensors for widths. Tensors of equal content have one number, whatever widths they came from.

    Those of the model itself and of the widths asked for last are held; others are made anew.

    Args:
        graph: the model's graph.
        model: the model, on the device it runs on.
        program: of the graph.
        numbering: of the program's values.
        weights, seed: as for `resize`.
    """

    def __init__(
        self, graph: Graph, model: nn.Module, program: Program, numbering: Numbering, *, weights: Weights, seed: int
    ) -> None:
        self._graph, self._model, self._program, self._numbering = graph, model, program, numbering
        self._weights, self._seed = weights, seed
        self._constants = {
            numbering.intern(("constant", slot), is_static=True): (slot, value) for slot, value in program.constants
        }
        self._numbers: dict[Widths, tuple[tuple[int, int], ...]] = {}
        self._held: dict[Widths, dict[int, Any]] = {}

    def forget(self) -> None:
        """Forget all numbers, for a numbering that starts anew."""
        self.__init__(  # type: ignore[misc]
            self._graph, self._model, self._program, self._numbering, weights=self._weights, seed=self._seed
        )

    def numbers(self, widths: Widths) -> tuple[tuple[int, int], ...]:
        """(slot, number) of every tensor, constant and size.

        Raises:
            PlanError, ResizeError: The widths do not fit the graph.
        """
        if widths not in self._numbers:
            self.values(widths)
        return self._numbers[widths]

    def values(self, widths: Widths) -> Mapping[int, Any]:
        """The tensor, or the size, of every such number."""
        if widths not in self._held:
            named = tensors_of(self._graph, self._model, widths, weights=self._weights, seed=self._seed)
            base = self._held.get(())
            self._held = {} if base is None else {(): base}
            numbers = [(slot, self._number(name, named[name], widths)) for slot, name in self._program.tensors]
            values: dict[int, Any] = {
                number: named[name] for (_, name), (_, number) in zip(self._program.tensors, numbers, strict=True)
            }
            values |= {number: value for number, (_, value) in self._constants.items()}
            numbers += [(slot, number) for number, (slot, _) in self._constants.items()]
            bindings = self._graph.widths(Plan((), widths)) if self._program.sizes else {}
            for slot, size in self._program.sizes:
                value = int(size.xreplace(bindings))
                number = self._numbering.intern(("size", slot, value), is_static=True)
                numbers.append((slot, number))
                values[number] = value
            self._numbers[widths] = tuple(numbers)
            self._held[widths] = values
        return self._held[widths]

    def _number(self, name: str, tensor: Tensor, widths: Widths) -> int:
        content = _digest(tensor) if self._graph.groups else ""
        return self._numbering.intern(("tensor", name, content), is_static=True)


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
