"""The laws on networks that people have, with random weights (pytorchcv, transformers), and on a trained ResNet-20."""

from __future__ import annotations

import copy
import os
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_quantise, check_resize, primed
from dovetail.transforms import Inherit, inheritance_report, resize
from dovetail.transforms.propagate import find_channels
from tests.architectures import ARCHITECTURES, PaddedResNet, small

pytestmark = pytest.mark.slow


def plan_for(graph: Graph, factor: float) -> Plan:
    free = [group for group in graph.groups if group.frozen is None]
    widths = {g.name: max(g.multiple_of, int(g.base * factor) // g.multiple_of * g.multiple_of) for g in free}
    return Plan.of(widths=widths)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, tuple[Tensor, ...], Graph]:
    model, inputs = small(request.param)
    return request.param, primed(model), inputs, trace(model, inputs)


def test_the_laws_hold(case: tuple[str, nn.Module, tuple[Tensor, ...], Graph]) -> None:
    _, model, inputs, graph = case
    for factor in (2.0, 1.5, 0.5):
        check_resize(graph, model, inputs, plan_for(graph, factor), retrace=factor == 2.0)
    # An RMSNorm written out takes the root of a mean square, which eight bits round to 0: one over it is infinite.
    sites = [site for o in graph.operations if o.type != "rsqrt" for site in o.all_sites]
    check_quantise(graph, model, inputs, Plan.of(dict.fromkeys(sites, parse("fixed(8,4)"))))


def test_resized_at_random_it_is_traced_again_as_planned_and_resized_back(
    case: tuple[str, nn.Module, tuple[Tensor, ...], Graph],
) -> None:
    name, model, inputs, graph = case
    rng = np.random.default_rng(sum(name.encode()))
    free = [group for group in graph.groups if group.frozen is None]
    widths = {g.name: g.multiple_of * int(rng.integers(2, 2 * g.base // g.multiple_of + 1)) for g in free}
    resized = check_resize(graph, model, inputs, Plan.of(widths=widths))
    back = resize(trace(resized, inputs), resized, Plan.of(widths={group.name: group.base for group in free}))
    assert {n: t.shape for n, t in back.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_growing_keeps_the_function_or_names_the_group_that_cannot(
    case: tuple[str, nn.Module, tuple[Tensor, ...], Graph],
) -> None:
    name, model, inputs, graph = case
    architecture = ARCHITECTURES[name]
    changes = inheritance_report(graph, plan_for(graph, 2.0))
    for change in changes:
        assert change.exact != any(fnmatch(change.group, glob) for glob in architecture.inexact), change
        assert change.exact or change.reasons
    grown = Plan.of(widths={change.group: change.width for change in changes if change.exact})
    assert grown.widths
    check_resize(graph, model, inputs, grown, retrace=False, tolerance=1e-5)
    if not architecture.computes_in_float32:
        doubles = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        check_resize(graph, copy.deepcopy(model).double(), doubles, grown, retrace=False, tolerance=1e-10)


def test_every_dimension_that_follows_a_free_group_has_a_layout_of_its_size(
    case: tuple[str, nn.Module, tuple[Tensor, ...], Graph],
) -> None:
    _, _, _, graph = case
    channels = find_channels(graph)
    widths = {channels.blocks[group.name]: group.base // group.multiple_of for group in graph.groups}
    for group in graph.groups:
        for member in group.members if group.frozen is None else ():
            layout = channels.layouts[member.parameter][member.dim]
            assert layout.size.subs(widths) == member.size.subs(graph.bindings)
            assert channels.blocks[group.name] in layout.symbols


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    folder = Path(os.environ.get("DOVETAIL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    weights, images = folder / "resnet20-cifar10.safetensors", folder / "cifar10.npz"
    if not weights.exists() or not images.exists():
        pytest.skip(f"needs {weights.name} and {images.name} in DOVETAIL_DATA")
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = PaddedResNet().eval()
    model.load_state_dict(load_file(weights))
    data = np.load(images, allow_pickle=False)
    x = torch.from_numpy(data["x_test"][:200]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    return model, x, torch.from_numpy(data["y_test"][:200].astype(np.int64))


def test_a_trained_resnet_keeps_every_answer_when_grown_and_most_when_quantised() -> None:
    model, x, y = trained()
    graph = trace(model, (x[:2],))
    with torch.no_grad():
        logits = model(x)
        assert float((logits.argmax(1) == y).float().mean()) > 0.85
        for factor in (2.0, 1.5):
            plan = plan_for(graph, factor)
            assert all(change.exact for change in inheritance_report(graph, plan))
            torch.testing.assert_close(resize(graph, model, plan)(x), logits, rtol=1e-4, atol=1e-4)
    quantised = check_quantise(graph, model, (x[:4],), Plan.of(dict.fromkeys(graph.sites, parse("fixed(16,8)"))))
    with torch.no_grad():
        assert float((quantised(x).argmax(1) == logits.argmax(1)).float().mean()) > 0.95


def test_shrinking_a_trained_resnet_by_importance_beats_shrinking_it_at_random() -> None:
    model, x, _ = trained()
    graph = trace(model, (x[:2],))
    plan = Plan.of(widths={g.name: g.base - 2 for g in graph.groups if g.name.startswith("layer3") and not g.frozen})
    with torch.no_grad():
        logits = model(x)

        def error(importance: str, seed: int = 0) -> float:
            resized = resize(graph, model, plan, weights=Inherit(importance), seed=seed)
            return float((resized(x) - logits).square().mean())

        assert error("l1") < np.mean([error("random", seed) for seed in range(5)])
