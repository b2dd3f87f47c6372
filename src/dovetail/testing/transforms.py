"""Laws of the transforms, as checks that can be run on any model.

Each check raises AssertionError with what broke. Authors of models that are to be searched can run them on their own.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import QuantisedModel, inheritance_report, quantise, resize

__all__ = ["check_quantise", "check_resize", "fingerprint", "primed"]


def primed(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with every parameter and running statistic drawn, so that no zero or one hides a fault."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))
    return model.eval()


def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """Everything about a model that a transform could disturb, bit for bit."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    described = tuple(
        (name, id(t), t.dtype, t.requires_grad, t._version, tuple(t.shape), t.detach().cpu().numpy().tobytes())
        for name, t in tensors
    )
    modules = tuple((name, id(m), type(m), m.training, repr(m)) for name, m in model.named_modules())
    hooks = tuple(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return described, modules, hooks, torch.random.get_rng_state().numpy().tobytes()


def check_resize(
    graph: Graph,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    plan: Plan,
    *,
    retrace: bool = True,
    tolerance: float = 1e-5,
) -> nn.Module:
    """Require the laws of `resize` for one plan, and return the resized model.

    The model is bit-identical after; shapes and size attributes are the planned ones; mode, dtype and requires_grad
    stay; the same plan gives the same model again; outputs stay where the report says so; a training step, saving and
    loading work; traced again, it is what was planned.

    Args:
        graph: the model's graph.
        model: the model, in eval mode.
        inputs: what to run it on.
        plan: widths.
        retrace: also trace the resized model, which takes as long as tracing the model did.
        tolerance: largest difference of outputs, as a part of the largest output, where the function is to stay.
    """
    before = fingerprint(model)
    resized = resize(graph, model, plan)
    assert fingerprint(model) == before, "resize changed the model it was given"
    _check_shapes(graph, resized, plan)
    _check_kept(model, resized)
    again = resize(graph, model, plan).state_dict()
    assert all(torch.equal(t, again[name]) for name, t in resized.state_dict().items()), (
        "the same plan gave other weights"
    )
    with torch.no_grad():
        expected, got = _output(model, inputs), _output(resized, inputs)
    assert got.shape == expected.shape, f"output has shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if all(change.exact for change in inheritance_report(graph, plan)):
        error = float((got - expected).abs().max())
        scale = max(1.0, float(expected.abs().max()))
        assert error <= tolerance * scale, f"the function moved by {error} at outputs up to {scale}"
    _check_trains(resized, inputs)
    _check_saves(resized, inputs)
    if retrace:
        _check_retraces(graph, resized, inputs, plan)
    return resized


def check_quantise(graph: Graph, model: nn.Module, inputs: tuple[Tensor, ...], plan: Plan) -> QuantisedModel:
    """Require the laws of `quantise` for one plan, and return the quantised model.

    The model is bit-identical after; the plan without formats reproduces its outputs exactly; names of the state dict
    are the model's; a copy computes the same; a training step gives every parameter that had one a gradient; saving
    and loading work.
    """
    before = fingerprint(model)
    quantised = quantise(graph, model, plan)
    with torch.no_grad():
        plain = quantise(graph, model, Plan())
        assert torch.equal(_output(plain, inputs), _output(model, inputs)), "no formats, and yet the outputs differ"
        expected = _output(quantised, inputs)
        assert torch.equal(_output(copy.deepcopy(quantised), inputs), expected), "a copy computes something else"
    assert list(quantised.state_dict()) == list(model.state_dict()), "the state dict has other names"
    assert [n for n, _ in quantised.named_parameters()] == [n for n, _ in model.named_parameters()]
    _check_saves(quantised, inputs)
    _check_trains(quantised, inputs)
    assert fingerprint(model) == before, "quantise changed the model it was given"
    return quantised


def _check_shapes(graph: Graph, resized: nn.Module, plan: Plan) -> None:
    widths = graph.widths(plan)
    tensors = {**dict(resized.named_parameters()), **dict(resized.named_buffers())}
    assert set(graph.tensor_names) <= set(tensors), "a tensor is missing"
    for name in graph.tensor_names:
        planned = tuple(int(size.subs(widths)) for size in graph.tensor_shape(name))
        assert tuple(tensors[name].shape) == planned, (
            f"{name} has shape {tuple(tensors[name].shape)}, planned {planned}"
        )
    for attribute in graph.attributes:
        value = getattr(resized.get_submodule(attribute.module), attribute.name)
        value = value if attribute.index is None else value[attribute.index]
        assert value == attribute.size.subs(widths), f"{attribute.module}.{attribute.name} is {value}"


def _check_kept(model: nn.Module, resized: nn.Module) -> None:
    assert type(resized) is type(model)
    for (path, old), (_, new) in zip(model.named_modules(), resized.named_modules(), strict=True):
        assert type(old) is type(new), f"{path} is now a {type(new).__name__}"
        assert old is not new, f"{path} is the user's own module"
        assert old.training == new.training, f"{path}: training mode changed"
        assert getattr(old, "inplace", None) == getattr(new, "inplace", None), f"{path}: inplace changed"
    own = {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    both = zip(model.named_parameters(), resized.named_parameters(), strict=True)
    for (name, old), (other, new) in both:
        assert name == other
        assert id(new) not in own, f"{name} is the user's own parameter"
        assert (old.dtype, old.device, old.requires_grad) == (new.dtype, new.device, new.requires_grad), name


def _check_trains(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    trained = copy.deepcopy(model).train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.autograd.backward(_output(trained, inputs).square().mean())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in parameters), "no gradient anywhere"
    optimizer.step()
    assert all(bool(p.isfinite().all()) for p in parameters), "a training step gave a value that is not finite"


def _check_saves(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(_output(other, inputs), _output(model, inputs)), (
            "saved and loaded it computes something else"
        )


def _check_retraces(graph: Graph, resized: nn.Module, inputs: tuple[Tensor, ...], plan: Plan) -> None:
    """The graph of the resized model computes what it computes, costs what was priced, and has the same free groups."""
    traced, batch = trace(resized, inputs), len(inputs[0])
    tensors = {**dict(resized.named_parameters()), **dict(resized.named_buffers())}
    with torch.no_grad():
        expected = _output(resized, inputs)
        error = float((traced.run(tensors, *inputs) - expected).abs().max())
    assert error <= 1e-5 * max(1.0, float(expected.abs().max())), f"traced again it computes something else by {error}"
    priced, counted = CostModel(graph, batch).price(plan), CostModel(traced, batch).price(Plan())
    for name, cost in priced.items():
        np.testing.assert_equal(counted[name].value, cost.value, f"{name}, traced again and priced")
    # The exporter takes a size of one for a constant.
    widths = dict(plan.widths)
    planned = {g.name: (widths.get(g.name, g.base), g.multiple_of) for g in graph.groups if g.frozen is None}
    planned = {name: sizes for name, sizes in planned.items() if sizes[0] > 1}
    found = {g.name: (g.base, g.multiple_of) for g in traced.groups if g.frozen is None and g.name in planned}
    assert found == planned, f"traced again, width groups are {found}, planned were {planned}"


def _output(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    result = model(*inputs)
    if isinstance(result, Tensor):
        return result
    found = result[0] if isinstance(result, (tuple, list)) else next(iter(result.values()))
    assert isinstance(found, Tensor)
    return found
