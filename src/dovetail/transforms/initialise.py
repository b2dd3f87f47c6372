"""Fresh weights for a model, without touching the global random state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["initialise"]


def initialise(model: nn.Module, *, seed: int) -> None:
    """Draw every parameter of a model anew, in place, in module order under one seed.

    A module that has `reset_parameters` gets what that gives, which is what building the module anew would give. A
    parameter of another module keeps its mean and spread: it is drawn from a normal distribution with the mean and
    standard deviation that it had, so one that was constant (a layer scale, a class token of zeros) is that constant
    again. Buffers of such modules stay.

    Args:
        model: one of our own copies.
        seed: the draws follow from it and the model alone.
    """
    devices = sorted({t.device.index or 0 for t in model.parameters() if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        done: set[int] = set()
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
                done.update(id(parameter) for parameter in own)
                continue
            for parameter in own:
                if id(parameter) not in done:
                    _redraw(parameter)
                    done.add(id(parameter))


def _redraw(parameter: Tensor) -> None:
    if parameter.is_floating_point() and parameter.numel() > 0:
        spread, mean = torch.std_mean(parameter, correction=0)
        parameter.normal_().mul_(spread).add_(mean)
