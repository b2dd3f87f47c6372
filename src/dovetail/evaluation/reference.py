"""The slow, obvious way to evaluate plans: build the model of each and run it. The oracle of the fast one."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.calibration import CALIBRATION_SAMPLES, Calibration
from dovetail.evaluation.metrics import MetricSet
from dovetail.evaluation.program import compile_program
from dovetail.evaluation.score import Outcome, Score
from dovetail.evaluation.sizing import default_batch_size, is_small, on_one_thread, pieces, place
from dovetail.graph import Graph
from dovetail.graph.export import first_tensor
from dovetail.plan import Plan
from dovetail.transforms import Weights, apply

__all__ = ["ReferenceEvaluator"]


class ReferenceEvaluator:
    """Evaluates plans one at a time with the transforms that users call, sharing nothing between them.

    Args: as for `PtqEvaluator`.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        split: Split,
        metrics: Sequence[str] = ("accuracy",),
        *,
        device: torch.device | str = "cpu",
        batch_size: int | None = None,
        weights: Weights = "inherit",
        seed: int = 0,
        calibration: Split | None = None,
    ) -> None:
        self._graph = graph
        self._device = torch.device(device)
        self._model = copy.deepcopy(model).to(self._device).eval()
        self._split = place(split, self._model, self._device)
        self._metrics = MetricSet(metrics, split.targets)
        self._weights, self._seed = weights, seed
        program = compile_program(graph, device)
        self._batch_size = batch_size or default_batch_size(program, len(split), self._device)
        self._is_small = is_small(program, self._model, self._batch_size, self._device)
        self._calibration = Calibration(
            graph,
            self._model,
            place((calibration or split).take(CALIBRATION_SAMPLES), self._model, self._device),
            weights=weights,
            seed=seed,
        )

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """The outcome of each plan, in the order given."""
        for plan in plans:
            start = time.perf_counter()
            try:
                with on_one_thread(self._is_small):
                    result = self._score(plan)
            except EvaluationError:
                raise
            except (DovetailError, RuntimeError) as error:
                result = str(error) or repr(error)
            duration = time.perf_counter() - start
            if isinstance(result, str):
                yield Outcome(plan, None, result, duration)
            else:
                yield Outcome(plan, result, None, duration)

    @torch.no_grad()
    def _score(self, plan: Plan) -> Score | str:
        concrete = self._calibration.resolve(plan)
        built = apply(self._graph, self._model, concrete, weights=self._weights, seed=self._seed).eval()
        found = []
        for part in pieces(len(self._split), self._batch_size):
            outputs = first_tensor(built(*(x[part] for x in self._split.inputs)))
            values = self._metrics.measure(outputs, self._split.targets[part])
            if isinstance(values, str):
                return values
            found.append(values)
        return self._metrics.score(found)
