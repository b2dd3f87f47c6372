"""Configurations of MASE's chop run unchanged; what cannot be carried over is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dovetail.chop import is_chop, translate
from dovetail.config import RunConfig, decode_config, read_config
from dovetail.errors import ConfigError
from dovetail.session import Session

TOY = """
model = "jsc-tiny"
dataset = "digits-4x4"
task = "cls"
max_epochs = 5
batch_size = 256
learning_rate = 1e-2
accelerator = "cpu"
project = "jsc tiny/1"
seed = 42
load_name = "ckpt/best.ckpt"
load_type = "pl"
[search.search_space]
name = "graph/quantize/mixed_precision_ptq"
[search.search_space.setup]
by = "name"
[search.search_space.seed.default.config]
name = ["NA"]
[search.search_space.seed.seq_blocks_2.config]
name = ["integer"]
data_in_width = [4, 8]
data_in_frac_width = ["NA"]
weight_width = [2, 4, 8]
weight_frac_width = ["NA", 1]
bias_width = [8]
bias_frac_width = [-2, 9]
[search.strategy]
name = "optuna"
eval_mode = true
[search.strategy.sw_runner.basic_evaluation]
data_loader = "val_dataloader"
num_samples = 512
[search.strategy.hw_runner.average_bitwidth]
compare_to = 32
[search.strategy.setup]
n_jobs = 2
n_trials = 20
timeout = 20000
sampler = "TPE"
sum_scaled_metrics = false
[search.strategy.metrics]
accuracy.scale = 1.0
accuracy.direction = "maximize"
average_bitwidth.scale = 0.2
average_bitwidth.direction = "minimize"
"""


def table(**seeds: Any) -> dict[str, Any]:
    """A chop table with these seeds; `by` and `setup`, `strategy` and top-level keys can be given too."""
    by = seeds.pop("by", "name")
    strategy = {"name": "optuna", "setup": seeds.pop("setup", {}), **seeds.pop("strategy", {})}
    top = seeds.pop("top", {})
    space = {"setup": {"by": by}, "seed": {key: {"config": value} for key, value in seeds.items()}}
    return {
        "model": "jsc-tiny",
        "dataset": "digits-4x4",
        **top,
        "search": {"search_space": space, "strategy": strategy},
    }


def run(chop: dict[str, Any]) -> tuple[RunConfig, tuple[str, ...]]:
    ours, warnings = translate(chop, where="c.toml")
    return decode_config(ours), warnings


def test_every_key_of_a_whole_file_is_honoured_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOY)
    config, warnings = read_config(tmp_path / "c.toml")
    assert warnings == ()
    assert (config.model.name, config.model.seed) == ("jsc-tiny", 42)
    assert config.model.checkpoint == str(tmp_path / "ckpt/best.ckpt")
    assert (config.data.name, config.data.batch_size, config.data.seed) == ("digits-4x4", 256, 42)
    assert (config.train.epochs, config.train.learning_rate, config.train.seed) == (5, 0.01, 42)
    assert (config.evaluation.protocol, config.evaluation.split, config.evaluation.samples) == (
        "ptq",
        "validation",
        512,
    )
    assert (config.out, config.workers, config.device) == (str(tmp_path / "runs/jsc-tiny-1"), 2, "cpu")
    search = config.search
    assert (search.strategy, search.trials, search.timeout_s, search.seed) == ("tpe", 20, 20000, 42)
    assert search.objective == "pareto"
    assert {n: (m.direction, m.scale) for n, m in search.metrics.items()} == {
        "accuracy": ("maximize", 1.0),
        "average_bitwidth": ("minimize", 0.2),
    }


def test_widths_and_fractions_are_crossed_and_na_means_half_the_width(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOY)
    (rule,) = read_config(tmp_path / "c.toml")[0].space.precision
    assert (rule.operations, rule.together) == ("seq_blocks_2", False)
    assert rule.data_in == ("fixed(4,2)", "fixed(8,4)")
    assert rule.weight == ("fixed(2,1)", "fixed(4,2)", "fixed(4,1)", "fixed(8,4)", "fixed(8,1)")
    assert rule.bias == ("fixed(8,-2)", "fixed(8,9)")


def test_our_own_layout_is_not_taken_for_chops() -> None:
    assert not is_chop({"model": {"name": "x"}, "search": {"strategy": "tpe"}})
    assert is_chop({"model": "x"})
    assert is_chop({"search": {"search_space": {}}})


def test_by_type_each_operation_of_the_type_decides_for_itself() -> None:
    integer = {"name": ["integer"], "weight_width": [8]}
    config, warnings = run(table(by="type", linear=integer, batch_norm1d=integer, seq_blocks_2=integer))
    assert [(r.operations, r.together) for r in config.space.precision] == [("linear", False), ("batch_norm", False)]
    assert len(warnings) == 1
    assert "seed.seq_blocks_2: is no type that chop knows" in warnings[0]


def test_by_name_a_type_has_no_effect_and_that_is_said() -> None:
    config, warnings = run(table(linear={"name": ["integer"], "weight_width": [8]}))
    assert config.space.precision == ()
    assert "seed.linear: names a type, and with by = 'name'" in warnings[0]


def test_a_default_that_quantises_is_the_last_rule_and_nodes_left_alone_do_not_fall_to_it() -> None:
    chop = table(seq_blocks_2={"name": ["NA"]}, default={"name": ["integer"], "data_in_width": [4]})
    config, warnings = run(chop)
    alone, rest = config.space.precision
    assert (alone.operations, alone.data_in, alone.weight, alone.bias) == ("seq_blocks_2", *[("float32",)] * 3)
    assert (rest.operations, rest.data_in) == ("*", ("fixed(4,2)",))
    assert warnings == ()


def test_na_beside_a_quantiser_is_float32_as_a_choice_and_the_difference_is_said() -> None:
    config, warnings = run(table(fc={"name": ["integer", "NA"], "weight_width": [4]}))
    assert config.space.precision[0].weight == ("float32", "fixed(4,2)")
    assert "config.name: 'NA' beside others" in warnings[0]


def test_other_quantisers_of_chop_are_read_with_their_own_keys() -> None:
    fc = {"name": ["minifloat_ieee"], "weight_width": [8], "weight_exponent_width": [4], "weight_exponent_bias": [7]}
    config, warnings = run(table(fc=fc))
    assert config.space.precision[0].weight == ("minifloat_ieee(8,4,7)",)
    assert warnings == ()


def test_a_quantiser_that_is_not_known_is_named() -> None:
    _, warnings = run(table(fc={"name": ["quantum"], "weight_width": [8]}))
    assert "seed.fc.config.name: 'quantum' is not honoured as a choice." in warnings[0]


def test_channel_multipliers_become_one_decision_for_each_layers_outputs() -> None:
    chop = table(
        seq_blocks_2={"name": ["output_only"], "channel_multiplier": [1, 2, 4]},
        seq_blocks_4={"name": ["both"], "channel_multiplier": [1, 2]},
        seq_blocks_6={"name": ["input_only"], "channel_multiplier": [1, 2]},
    )
    config, warnings = run(chop)
    assert [(r.groups, r.multipliers, r.together) for r in config.space.width] == [
        ("seq_blocks_2", (1, 2, 4), False),
        ("seq_blocks_4", (1, 2), False),
    ]
    assert config.evaluation.protocol == "train"
    assert [w.split(":")[1].strip() for w in warnings] == ["search.strategy.eval_mode"]


def test_of_pairs_the_output_is_the_choice_and_that_is_said() -> None:
    config, warnings = run(table(fc={"name": ["both"], "channel_multiplier": [[1, 2], [2, 4], [1, 4]]}))
    assert config.space.width[0].multipliers == (2, 4)
    assert any("of each pair (input, output) the output is the choice" in w for w in warnings)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("random", "random"), ("tpe", "tpe"), ("nsgaii", "nsga2"), ("NSGAIII", "nsga3"), ("qmc", "qmc"), ("grid", "grid")]
    + [(name, "brute-force") for name in ("brute-force", "bruteforce", "brute_force", "BruteForce", "brute")],
)
def test_samplers_are_known_by_chops_names(theirs: str, ours: str) -> None:
    config, warnings = run(table(setup={"sampler": theirs}))
    assert (config.search.strategy, warnings) == (ours, ())


def test_a_strategy_may_be_named_in_place_of_a_sampler() -> None:
    assert run(table(strategy={"name": "brute_force"}))[0].search.strategy == "brute-force"


def test_a_sum_of_scaled_metrics_is_a_weighted_sum_in_the_direction_given() -> None:
    config, _ = run(table(setup={"sum_scaled_metrics": True, "direction": "maximize"}))
    assert (config.search.objective, config.search.direction) == ("weighted-sum", "maximize")


def test_latency_is_measured_in_milliseconds() -> None:
    config, _ = run(table(strategy={"metrics": {"latency": {"scale": 1.0, "direction": "minimize"}}}))
    assert list(config.search.metrics) == ["latency_ms"]


def test_a_runner_that_trains_means_the_protocol_train() -> None:
    runner = {"basic_train": {"data_loader": "train_dataloader", "num_samples": 100}}
    config, _ = run(table(strategy={"sw_runner": runner}))
    assert (config.evaluation.protocol, config.evaluation.split) == ("train", "validation")


@pytest.mark.parametrize(
    ("chop", "message"),
    [
        (table(top={"dataset": "jsc"}), "dataset: 'jsc' is read as 'jsc-openml'"),
        (table(top={"task": "lm"}), "task: 'lm' is not honoured"),
        (table(top={"load_name": "facebook/opt", "load_type": "hf"}), "load_name: load_type = 'hf' is not honoured"),
        (table(top={"accelerator": "tpu"}), "accelerator: 'tpu' is not honoured"),
        (table(top={"log_every_n_steps": 5}), "log_every_n_steps: is not honoured."),
        (table(top={"passes": {"quantize": {}}}), "passes: belongs to chop's transform action"),
        (table(setup={"sampler": "annealing"}), "setup.sampler: 'annealing' is not honoured; 'tpe' is used."),
        (table(setup={"pkl_ckpt": "a.pkl"}), "search.strategy.setup.pkl_ckpt: is not honoured."),
        (table(strategy={"name": "rl"}), "search.strategy.name: 'rl' is not honoured"),
        (table(strategy={"hw_runner": {"average_bitwidth": {"compare_to": 16}}}), "compare_to: 16 is not honoured"),
        (
            table(strategy={"sw_runner": {"basic_evaluation": {"x": 1}}}),
            "sw_runner.basic_evaluation.x: is not honoured",
        ),
        (
            table(fc={"name": ["integer"], "weight_width": [8], "floor": [True]}),
            "seed.fc.config.floor: is not honoured.",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named_in_a_warning(chop: dict[str, Any], message: str) -> None:
    config, warnings = run(chop)
    assert isinstance(config, RunConfig)
    assert len(warnings) == 1
    assert warnings[0].startswith("c.toml: ")
    assert message in warnings[0]


@pytest.mark.parametrize(
    ("chop", "message"),
    [
        ({"model": "jsc-tiny"}, "c.toml: dataset: must name a data set, got None"),
        (table(by="kind"), "setup.by: must be 'name' or 'type', got 'kind'"),
        (table(fc={"name": ["integer"], "weight_width": ["8"]}), "fc.config.weight_width: must list integers, got '8'"),
        (table(fc={"name": ["both"]}), "fc.config.channel_multiplier: must list at least one multiplier"),
        (table(strategy={"sw_runner": {"basic_evaluation": {"data_loader": "x"}}}), "data_loader: must be one of"),
        (table(strategy={"setup": 3}), "search.strategy.setup: must be a table, got 3"),
    ],
)
def test_what_chop_would_not_take_either_is_one_error_that_names_the_place(chop: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        translate(chop, where="c.toml")
    assert message in str(caught.value)


def test_node_names_with_underscores_find_the_layers_with_dots() -> None:
    chop = table(
        seq_blocks_2={"name": ["integer"], "weight_width": [4, 8]},
        seq_blocks_4={"name": ["output_only"], "channel_multiplier": [1, 2]},
        top={"model": "jsc-three-linear"},
    )
    session = Session(run(chop)[0])
    assert [(d.kind, d.name.split(":")[0]) for d in session.space.decisions] == [
        ("precision", "seq_blocks.2"),
        ("width", "seq_blocks.4"),
    ]
    assert session.space.size == 4
