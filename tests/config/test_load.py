"""One TOML file becomes one RunConfig, or one clear error."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from dovetail.config import (
    DataConfig,
    MetricConfig,
    ModelConfig,
    PrecisionRule,
    RunConfig,
    SearchConfig,
    SpaceConfig,
    WidthRule,
    decode_config,
    load_config,
    to_toml,
)
from dovetail.errors import ConfigError

WHOLE = """
[model]
name = "jsc-three-linear"
args = { h1 = 32 }
checkpoint = "runs/base/model.safetensors"
[data]
name = "digits"
batch_size = 512
[train]
epochs = 30
optimizer = "adamw"
learning_rate = 1e-2
[evaluation]
protocol = "ptq"
split = "validation"
samples = 512
memory = "1 GiB"
[[space.precision]]
operations = "linear"
together = true
data_in = ["fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"]
weight  = ["fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"]
bias    = ["fixed(8,4)"]
[[space.width]]
groups = "seq_blocks.2"
multipliers = [1, 2, 0.1, "1/3"]
[search]
strategy = "brute-force"
trials = 100
seed = 0
objective = "pareto"
timeout = "10 min"
[search.metrics]
accuracy         = { direction = "maximize", scale = 1.0 }
average_bitwidth = { direction = "minimize", scale = 0.2 }
[search.constraints]
model_bytes = "<= 4 KiB"
"""
LEAST = '[model]\nname = "jsc-tiny"\n[data]\nname = "digits"\n'


@pytest.fixture
def write(tmp_path: Path):
    def write_text(text: str) -> Path:
        file = tmp_path / "search.toml"
        file.write_text(text)
        return file

    return write_text


def test_every_key_of_the_documented_file_is_read(write) -> None:
    config = load_config(write(WHOLE))
    assert config.model.args == {"h1": 32}
    assert config.train.learning_rate == 0.01
    assert config.evaluation.memory_bytes == 2**30
    assert config.space.precision == (
        PrecisionRule(
            operations="linear",
            together=True,
            data_in=("fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"),
            weight=("fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"),
            bias=("fixed(8,4)",),
        ),
    )
    assert config.space.width[0].fractions == (1, 2, Fraction(1, 10), Fraction(1, 3))
    assert config.search.timeout_s == 600
    assert config.search.metrics["average_bitwidth"] == MetricConfig(direction="minimize", scale=0.2)
    assert config.search.limits[0].value == 4096


def test_the_same_run_can_be_written_in_python(write) -> None:
    text = LEAST + '[[space.width]]\ngroups = "*"\nmultipliers = [1, 2]\n[search]\nstrategy = "tpe"\n'
    assert load_config(write(text)) == RunConfig(
        model=ModelConfig(name="jsc-tiny"),
        data=DataConfig(name="digits"),
        space=SpaceConfig(width=(WidthRule(groups="*", multipliers=(1, 2)),)),
        search=SearchConfig(strategy="tpe"),
    )


def test_a_config_written_to_toml_reads_back_equal(write) -> None:
    config = load_config(write(WHOLE))
    assert decode_config(tomllib.loads(to_toml(config))) == config


def test_text_with_any_character_survives_the_round_trip() -> None:
    name = 'a "quoted" \\ name\n\t\x7f of 😀.'
    config = RunConfig(
        model=ModelConfig(name=name, args={"odd key": [1, 2.5, {"x": True}]}), data=DataConfig(name="digits")
    )
    assert decode_config(tomllib.loads(to_toml(config))) == config


def test_a_python_object_may_stand_for_a_name_and_is_not_written() -> None:
    config = RunConfig(model=ModelConfig(module=Path("here")), data=DataConfig(name="digits"))
    assert "here" not in to_toml(config)


def test_relative_paths_are_taken_from_the_files_folder(write, tmp_path: Path) -> None:
    top = 'out = "o"\nstorage = "s.db"\n'
    config = load_config(
        write(top + '[model]\nname = "nets/net.py:make"\ncheckpoint = "c.pt"\n[data]\nname = "d.npz"\n')
    )
    assert config.out == str(tmp_path / "o")
    assert config.storage == str(tmp_path / "s.db")
    assert config.model.name == f"{tmp_path / 'nets/net.py'}:make"
    assert config.model.checkpoint == str(tmp_path / "c.pt")
    assert config.data.name == str(tmp_path / "d.npz")


def test_names_and_urls_are_not_taken_for_paths(write) -> None:
    config = load_config(
        write('storage = "sqlite:///x.db"\n[model]\nname = "package.module:make"\n[data]\nname = "digits"')
    )
    assert (config.storage, config.model.name, config.data.name) == ("sqlite:///x.db", "package.module:make", "digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modell]\nname = 'x'", "search.toml: unknown key 'modell'. Did you mean 'model'?"),
        (LEAST + "[search]\nstrateg = 'tpe'", "search: unknown key 'strateg'. Did you mean 'strategy'?"),
        (
            LEAST + "[[space.precision]]\noperations = 'linear'\nwieght = ['fixed(8,4)']",
            "space.precision[0]: unknown key 'wieght'. Did you mean 'weight'?",
        ),
        (
            LEAST + "[search.metrics]\naccuracy = { direktion = 'maximize' }",
            "search.metrics.accuracy: unknown key 'direktion'. Did you mean 'direction'?",
        ),
        (LEAST + "[train]\nmodule = 3", "train: unknown key 'module'"),
        ("[model]\nname = 'x'\nmodule = 3\n[data]\nname = 'y'", "search.toml: model: unknown key 'module'"),
        (LEAST + "[search]\ntrials = 'many'", "search.trials: must be int | left out, got str 'many'."),
        (LEAST + "[search]\ntrials = 1.5", "search.trials: must be int | left out, got float 1.5."),
        (LEAST + "[search]\ntrials = true", "search.trials: must be int | left out, got bool True."),
        (LEAST + "[search]\ntrials = 0", "search.trials: must be at least 1, got 0."),
        (LEAST + "[train]\noptimizer = 'adamv'", "train.optimizer: must be one of adamw, adam, sgd, rmsprop, got"),
        (LEAST + "[evaluation]\nsplit = 'val'", "evaluation.split: must be one of train, validation, test, got"),
        (
            LEAST + "[search.metrics]\naccuracy = { direction = 'maximise' }",
            "search.metrics.accuracy.direction: must be one of maximize, minimize, got",
        ),
        (LEAST + "[search]\ntimeout = 'soon'", "search.timeout: must be a duration"),
        (LEAST + "[search.constraints]\nflops = '4'", "search.constraints.flops: must be '<=' or '>='"),
        (LEAST + "[evaluation]\nmemory = 'much'", "evaluation.memory: must be a size"),
        (
            LEAST + "[[space.width]]\ngroups = 'a'\nmultipliers = [1, 2, -1]",
            "space.width[0].multipliers[2]: a multiplier must be > 0, got -1.",
        ),
        (LEAST + "[[space.width]]\ngroups = 'a'\nmultipliers = [0]", "multipliers[0]: a multiplier must be > 0, got 0"),
        (LEAST + "[[space.width]]\ngroups = 'a'\nmultipliers = ['x']", "a multiplier must be a number or a fraction"),
        (LEAST + "[[space.width]]\ngroups = 'a'\nmultipliers = []", "space.width[0].multipliers: must list"),
        (LEAST + "[[space.width]]\ngroups = 'a'\nmultipliers = [1, '2/2']", "multipliers[1]: each choice must be"),
        (LEAST + "[[space.width]]\nmultipliers = [1]", "space.width[0].groups: must be given."),
        (LEAST + "[[space.precision]]\noperations = 'a'", "space.precision[0].data_in: at least one of"),
        (
            LEAST + "[[space.precision]]\noperations = 'a'\nweight = ['x', 'y', 'x']",
            "space.precision[0].weight[2]: each choice must be listed once, 'x' came twice.",
        ),
        ("[data]\nname = 'digits'", "search.toml: model: must be given."),
        ("[model]\nname = ''\n[data]\nname = 'digits'", "search.toml: model.name: must name a model, got ''."),
        ("[model", "must be TOML:"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_error_that_names_the_place(write, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: must be a readable file"):
        load_config(tmp_path / "absent.toml")


def test_reading_a_config_does_not_import_torch(write) -> None:
    file = str(write(WHOLE))
    code = (
        f"import sys; from dovetail.config import load_config as load; load({file!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
