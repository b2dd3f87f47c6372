"""Laws of models with several inputs: masks beside tokens, by position and by name."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.formats import Format, parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms import apply, quantise, resize

HIDDEN, INNER, LENGTH = 32, 37, 12


def bert() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=99,
            hidden_size=HIDDEN,
            intermediate_size=INNER,
            num_hidden_layers=1,
            num_attention_heads=4,
        )
        model: nn.Module = transformers.BertForSequenceClassification(config)
    return model.eval()


def masked(batch: int) -> tuple[Tensor, Tensor]:
    """Tokens, and a mask that hides the end of each row, of each another number."""
    generator = torch.Generator().manual_seed(batch)
    mask = (torch.arange(LENGTH) < LENGTH - 1 - 2 * torch.arange(batch)[:, None]).long()
    return torch.randint(0, 99, (batch, LENGTH), generator=generator), mask


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return bert()


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> Graph:
    tokens, mask = masked(2)
    return trace(model, (tokens,), {"attention_mask": mask})


def test_a_keyword_input_is_an_input_of_the_graph_and_its_values_count(model: nn.Module, graph: Graph) -> None:
    assert graph.num_inputs == 2
    assert graph.is_replayable
    tokens, mask = masked(4)
    found = graph.run(tensors(model), tokens, mask)
    torch.testing.assert_close(found, model(tokens, attention_mask=mask).logits, rtol=0, atol=1e-6)
    assert not torch.allclose(found, graph.run(tensors(model), tokens, torch.ones_like(mask)))


@pytest.mark.slow
def test_an_example_that_hides_nothing_does_not_make_the_mask_a_constant(model: nn.Module) -> None:
    tokens, mask = masked(2)
    graph = trace(model, (), {"input_ids": tokens, "attention_mask": torch.ones_like(mask)})
    found = graph.run(tensors(model), tokens, mask)
    torch.testing.assert_close(found, model(tokens, attention_mask=mask).logits, rtol=0, atol=1e-6)


def test_a_masked_model_is_priced_as_one_without_a_mask(graph: Graph) -> None:
    linear = LENGTH * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER) + HIDDEN * HIDDEN + HIDDEN * 2
    attention = 2 * LENGTH * LENGTH * HIDDEN
    assert CostModel(graph, 3).price(Plan())["macs"].value == 3 * (linear + attention)


@pytest.mark.parametrize("fmt", [parse("fixed(8,4)"), parse("float32")], ids=str)
def test_formats_act_beside_a_mask_which_is_not_rounded(model: nn.Module, graph: Graph, fmt: Format) -> None:
    tokens, mask = masked(3)
    (attention,) = graph.select("attention")
    plan = Plan.of({Site(attention.name, SiteKind.DATA_IN): fmt})
    seen: list[Tensor | None] = []
    own = F.scaled_dot_product_attention

    def by_hand(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: object) -> Tensor:
        seen.append(attn_mask)
        rounded = (fmt.quantise(x) for x in (q, k, v))
        return own(*rounded, attn_mask=attn_mask, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", by_hand)
        expected = model(tokens, attention_mask=mask).logits
    assert seen[0] is not None
    found = (quantise(graph, model, plan) if plan.formats else model)(tokens, attention_mask=mask).logits
    assert torch.equal(found, expected)


def test_a_masked_model_grows_without_changing_its_outputs_and_can_be_rounded_then(
    model: nn.Module, graph: Graph
) -> None:
    tokens, mask = masked(3)
    (group,) = [g for g in graph.select_groups("*intermediate*") if g.frozen is None]
    wide = resize(graph, model, Plan.of(widths={group.name: 2 * INNER}))
    expected = model(tokens, attention_mask=mask).logits
    torch.testing.assert_close(wide(tokens, attention_mask=mask).logits, expected, rtol=0, atol=1e-5)
    site = Site(group.name, SiteKind.WEIGHT)
    both = apply(graph, model, Plan.of({site: parse("fixed(3,2)")}, {group.name: 2 * INNER}))
    assert not torch.allclose(both(tokens, attention_mask=mask).logits, expected, atol=1e-4)


class Joined(nn.Module):
    """Two inputs of different width, and a keyword that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        joined = self.a(x) + self.b(y)
        return self.c(joined if weight is None else joined * weight)


@pytest.mark.parametrize("weighted", [False, True])
def test_inputs_go_in_order_and_keywords_after_them(weighted: bool) -> None:
    model = Joined()
    x, y, weight = torch.randn(2, 3), torch.randn(2, 5), torch.rand(2, 1)
    graph = trace(model, (x, y), {"weight": weight} if weighted else None)
    assert graph.num_inputs == 2 + weighted
    found = graph.run(tensors(model), *(torch.cat([v, v]) for v in ((x, y, weight) if weighted else (x, y))))
    torch.testing.assert_close(found[2:], model(x, y, weight if weighted else None))
    assert graph.group("a").frozen is None
