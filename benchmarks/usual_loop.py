"""The baseline: how searches over number formats are usually evaluated, one trial at a time.

For each trial a deep copy of the model, its linear layers swapped for layers that round, a `DataLoader` over a
`TensorDataset` in batches of 512, and a metric object that is updated batch by batch as torchmetrics' are: shapes and
values checked, true positives and support counted per class, accuracy computed at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dovetail.formats import Format
from dovetail.plan import Plan, Site, SiteKind

__all__ = ["Accuracy", "RoundingLinear", "usual_loop"]


class RoundingLinear(nn.Linear):
    """A linear layer on rounded operands."""

    def __init__(self, base: nn.Linear, formats: Mapping[SiteKind, Format]):
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.formats = dict(formats)

    def _rounded(self, x: Tensor, kind: SiteKind) -> Tensor:
        return self.formats[kind].quantise(x) if kind in self.formats else x

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self._rounded(self.bias, SiteKind.BIAS)
        return F.linear(self._rounded(x, SiteKind.DATA_IN), self._rounded(self.weight, SiteKind.WEIGHT), bias)


class Accuracy:
    """Multiclass accuracy as a stateful metric object."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.true_positives = torch.zeros(num_classes, dtype=torch.long)
        self.support = torch.zeros(num_classes, dtype=torch.long)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count one batch."""
        if outputs.shape[0] != targets.shape[0] or outputs.shape[1] != self.num_classes:
            raise ValueError("outputs and targets do not fit")
        if set(torch.unique(targets).tolist()) - set(range(self.num_classes)):
            raise ValueError("targets out of range")
        predicted = outputs.argmax(1)
        confusion = torch.bincount(targets * self.num_classes + predicted, minlength=self.num_classes**2)
        confusion = confusion.reshape(self.num_classes, self.num_classes)
        self.true_positives += confusion.diag()
        self.support += confusion.sum(1)

    def compute(self) -> float:
        """The share of samples that are right."""
        return float(self.true_positives.sum() / self.support.sum())


@torch.no_grad()
def usual_loop(
    model: nn.Module, plans: Sequence[Plan], inputs: Tensor, targets: Tensor, num_classes: int
) -> list[float]:
    """The accuracy of each plan."""
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=512)
    found = []
    for plan in plans:
        trial = copy.deepcopy(model).eval()
        precision = plan.precision
        for name, module in list(trial.named_modules()):
            formats = {kind: fmt for kind in SiteKind if (fmt := precision.get(Site(name, kind))) is not None}
            if isinstance(module, nn.Linear) and formats:
                parent, _, leaf = name.rpartition(".")
                setattr(trial.get_submodule(parent), leaf, RoundingLinear(module, formats))
        metric = Accuracy(num_classes)
        for x, y in loader:
            metric.update(trial(x), y)
        found.append(metric.compute())
    return found
