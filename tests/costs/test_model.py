"""Costs of one plan, against figures worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dovetail.costs import COSTS, CostModel
from dovetail.errors import PlanError, PricingError, UnknownSiteError
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind


def weight(operation, text):
    return {Site(operation, SiteKind.WEIGHT): parse(text)}


def data_in(operation, text):
    return {Site(operation, SiteKind.DATA_IN): parse(text)}


class JetTagger(nn.Module):
    def __init__(self, h1=32, h2=64):
        super().__init__()
        self.seq_blocks = nn.Sequential(
            *(nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, h1), nn.ReLU()),
            *(nn.Linear(h1, h2), nn.ReLU(), nn.Linear(h2, 5), nn.ReLU()),
        )

    def forward(self, x):
        return self.seq_blocks(x)


@pytest.fixture(scope="module")
def jets():
    return CostModel(trace(JetTagger(), (torch.zeros(2, 16),)), batch=8)


@pytest.mark.parametrize(
    ("h1", "h2", "params", "flops"),
    [(32, 64, 3_013, 47_272), (64, 64, 5_605, 88_488), (32, 128, 5_445, 85_672), (512, 1024, 539_173, 8_614_312)],
)
def test_the_jet_tagger_costs_what_the_published_tables_say(jets, h1, h2, params, flops):
    priced = jets.price(Plan.of(widths={"seq_blocks.2": h1, "seq_blocks.4": h2}), ["params", "flops"])
    assert priced["params"].value == params
    assert priced["flops"].value == flops


def test_flops_of_each_operation_follow_the_convention(jets):
    assert dict(jets.price(Plan(), ["flops"])["flops"].by_operation) == {
        "seq_blocks.0": 2 * 8 * 16,
        "seq_blocks.1": 8 * 16,
        "seq_blocks.2": 2 * 8 * 16 * 32,
        "seq_blocks.3": 8 * 32,
        "seq_blocks.4": 2 * 8 * 32 * 64,
        "seq_blocks.5": 8 * 64,
        "seq_blocks.6": 2 * 8 * 64 * 5,
        "seq_blocks.7": 8 * 5,
    }


def test_eight_bit_weights_of_every_linear_layer_average_to_eight_bits(jets):
    formats = {k: v for name in (2, 4, 6) for k, v in weight(f"seq_blocks.{name}", "fixed(8,4)").items()}
    priced = jets.price(Plan.of(formats), ["weight_bits", "average_bitwidth", "memory_density"])
    assert priced["weight_bits"].value == 8 * (16 * 32 + 32 * 64 + 64 * 5)
    assert priced["average_bitwidth"].value == 8.0
    assert priced["memory_density"].value == 4.0


def test_the_average_bitwidth_weighs_each_layer_by_its_elements(jets):
    priced = jets.price(Plan.of(weight("seq_blocks.2", "fixed(4,2)")), ["average_bitwidth"])["average_bitwidth"]
    assert priced.value == (4 * 512 + 32 * 2048 + 32 * 320) / (512 + 2048 + 320)
    assert dict(priced.by_operation) == {"seq_blocks.2": 4, "seq_blocks.4": 32, "seq_blocks.6": 32}


def test_model_bytes_take_each_parameter_at_its_own_format(jets):
    plan = Plan.of({**weight("seq_blocks.2", "fixed(4,2)"), Site("seq_blocks.4", SiteKind.BIAS): parse("fixed(8,4)")})
    assert jets.price(plan, ["model_bytes"])["model_bytes"].value == 3_013 * 4 - 512 * 28 / 8 - 64 * 24 / 8


def test_bops_multiply_both_operands_bits_and_take_32_where_there_is_no_format(jets):
    plan = Plan.of({**weight("seq_blocks.2", "fixed(4,2)"), **data_in("seq_blocks.2", "fixed(8,4)")})
    priced = jets.price(plan, ["bops"])["bops"]
    macs = {"seq_blocks.2": 8 * 512, "seq_blocks.4": 8 * 2048, "seq_blocks.6": 8 * 320}
    assert dict(priced.by_operation) == {
        "seq_blocks.2": macs["seq_blocks.2"] * 4 * 8,
        "seq_blocks.4": macs["seq_blocks.4"] * 32 * 32,
        "seq_blocks.6": macs["seq_blocks.6"] * 32 * 32,
    }


def test_activations_are_stored_in_the_format_that_reads_them(jets):
    everything = 8 * (16 * 3 + 2 * 32 + 2 * 64 + 2 * 5) * 4
    assert jets.price(Plan(), ["activation_bytes"])["activation_bytes"].value == everything
    plan = Plan.of(data_in("seq_blocks.2", "fixed(8,4)"))
    assert jets.price(plan, ["activation_bytes"])["activation_bytes"].value == everything - 8 * 16 * 3


def test_the_peak_is_the_largest_pair_of_a_chain(jets):
    # ReLU of 64 channels holds its input and its output: 2 x 8 x 64 float32.
    assert jets.price(Plan(), ["peak_activation_bytes"])["peak_activation_bytes"].value == 2 * 8 * 64 * 4


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


def test_a_skipped_connection_stays_alive_until_it_is_added():
    priced = CostModel(trace(Residual(), (torch.zeros(2, 6),)), batch=3).price(Plan())
    # Alive together while ReLU runs: the input, which waits for the sum, and ReLU's own input and output.
    assert priced["peak_activation_bytes"].value == 3 * (6 + 10 + 10) * 4
    assert priced["activation_bytes"].value == 3 * (6 + 10 + 10 + 6 + 6) * 4


def test_a_tensor_with_several_readers_is_stored_in_the_widest_format():
    costs = CostModel(trace(Residual(), (torch.zeros(2, 6),)), batch=1)
    add = next(op.name for op in costs.graph.operations if op.type == "add")
    narrow = Plan.of({**data_in("first", "fixed(4,2)"), **data_in(add, "fixed(8,4)")})
    stored = dict(costs.price(narrow, ["activation_bytes"])["activation_bytes"].by_operation)
    assert stored["inputs_0"] == 6 * 8 / 8
    assert stored["second"] == 6 * 8 / 8


def test_traffic_is_what_each_operation_reads_and_writes():
    costs = CostModel(trace(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), (torch.zeros(2, 4),)), batch=3)
    priced = costs.price(Plan.of(weight("0", "fixed(8,4)")), ["memory_traffic_bytes", "arithmetic_intensity"])
    first = 3 * 4 * 4 + 32 * 1 + 8 * 4 + 3 * 8 * 4
    second = 3 * 8 * 4 + 16 * 4 + 2 * 4 + 3 * 2 * 4
    assert dict(priced["memory_traffic_bytes"].by_operation) == {"0": first, "1": second}
    assert priced["arithmetic_intensity"].value == 2 * 3 * (32 + 16) / (first + second)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.body(self.body(x)))


def test_tied_and_shared_parameters_count_once_and_their_work_every_time():
    model = Tied()
    costs = CostModel(trace(model, (torch.zeros(2, 5, dtype=torch.long),)), batch=2)
    priced = costs.price(Plan(), ["params", "macs", "average_bitwidth"])
    assert priced["params"].value == sum(p.numel() for p in model.parameters()) == 66 + 42
    assert priced["macs"].value == 2 * 5 * (36 + 36 + 66)
    assert priced["average_bitwidth"].value == 32


def test_a_tied_parameter_is_stored_once_in_the_widest_format_that_reads_it():
    costs = CostModel(trace(Tied(), (torch.zeros(2, 5, dtype=torch.long),)), batch=2)

    def model_bytes(formats):
        return costs.price(Plan.of(formats), ["model_bytes"])["model_bytes"].value

    assert model_bytes({}) == 4 * (66 + 42)
    assert model_bytes(weight("head", "fixed(8,4)")) == 4 * (66 + 42)  # the embedding reads float32
    assert model_bytes(weight("body", "fixed(8,4)")) == 4 * (66 + 42)  # so does the second call of the shared layer
    both = {**weight("body", "fixed(8,4)"), **weight("body#1", "fixed(4,2)")}
    assert model_bytes(both) == 4 * (66 + 6) + 36


def test_the_product_of_two_activations_squares_their_bits():
    class Gram(nn.Module):
        def forward(self, x):
            return x @ x.transpose(1, 2)

    costs = CostModel(trace(Gram(), (torch.zeros(2, 3, 4),)), batch=2)
    (operation,) = (op for op in costs.graph.operations if op.type == "matmul")
    assert costs.price(Plan(), ["bops"])["bops"].value == 2 * 9 * 4 * 32 * 32
    plan = Plan.of(data_in(operation.name, "fixed(4,2)"))
    assert costs.price(plan, ["bops"])["bops"].value == 2 * 9 * 4 * 4 * 4


def test_an_average_over_no_weights_is_not_a_number():
    costs = CostModel(trace(nn.Sequential(nn.ReLU(), nn.Tanh()), (torch.zeros(2, 4),)), batch=2)
    priced = costs.price(Plan())
    assert math.isnan(priced["average_bitwidth"].value)
    assert priced["params"].value == 0


def test_formulas_are_polynomials_in_the_widths_by_name(jets):
    assert (
        str(jets.formula("params")) == "w[seq_blocks.2]*w[seq_blocks.4] + 17*w[seq_blocks.2] + 6*w[seq_blocks.4] + 37"
    )


@pytest.mark.parametrize("name", COSTS)
def test_a_formula_at_given_widths_is_the_cost_there(jets, name):
    formula = jets.formula(name)
    widths = {"w[seq_blocks.2]": 48, "w[seq_blocks.4]": 20}
    plan = Plan.of(widths={"seq_blocks.2": 48, "seq_blocks.4": 20})
    at = formula.subs({s: widths[str(s)] for s in formula.free_symbols})
    assert float(at) == pytest.approx(jets.price(plan, [name])[name].value, rel=1e-12)


def test_what_cannot_be_priced_is_an_error_that_says_why(jets):
    with pytest.raises(PricingError, match=r"unknown cost 'flop'. Did you mean 'flops'"):
        jets.price(Plan(), ["flop"])
    with pytest.raises(UnknownSiteError, match="nowhere"):
        jets.price(Plan.of(widths={"nowhere": 3}))
    with pytest.raises(PlanError, match="must keep its 5 channels"):
        jets.price(Plan.of(widths={"seq_blocks.6": 6}))
    with pytest.raises(PricingError, match="batch: must be at least 1"):
        CostModel(jets.graph, batch=0)
