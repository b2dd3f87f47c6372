"""Built-in models have exactly the layers they are known for; the user's own are found by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dovetail.config import DataConfig, ModelConfig, RunConfig
from dovetail.data import Dataset, Split
from dovetail.errors import ConfigError
from dovetail.models import MODELS, build_model, load_model_and_data


def dataset(shape: tuple[int, ...], classes: int = 5) -> Dataset:
    split = Split((torch.zeros(classes, *shape),), torch.arange(classes))
    return Dataset("made", split, split, split, classes, shape, "made")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_jsc_tiny_is_batch_norm_relu_linear_relu() -> None:
    model = build_model(ModelConfig(name="jsc-tiny"), dataset((16,)))
    names = [f"{name}:{type(m).__name__}" for name, m in model.named_modules() if not list(m.children())]
    assert names == ["seq_blocks.0:BatchNorm1d", "seq_blocks.1:ReLU", "seq_blocks.2:Linear", "seq_blocks.3:ReLU"]
    assert count(model) == 16 * 2 + 16 * 5 + 5


def test_jsc_three_linear_has_3013_parameters_and_its_hidden_widths_are_arguments() -> None:
    assert count(build_model(ModelConfig(name="jsc-three-linear"), dataset((16,)))) == 3013
    model = build_model(ModelConfig(name="jsc-three-linear", args={"h1": 64}), dataset((16,)))
    assert count(model) == 17 * 64 + 64 * 64 + 64 + 5 * 64 + 5 + 32
    kinds = [type(layer) for layer in model.seq_blocks]  # type: ignore[union-attr]
    assert kinds == [nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


def test_resnet20_has_the_parameters_of_the_paper() -> None:
    assert count(build_model(ModelConfig(name="resnet20"), dataset((3, 32, 32), 10))) == 269_722  # 0.27 M


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_with_one_logit_per_class(name: str) -> None:
    shape = {"resnet20": (3, 32, 32), "small-resnet": (2, 9, 9)}.get(name, (16,))
    model = build_model(ModelConfig(name=name), dataset(shape, 7))
    assert not model.training
    assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("name", ["mlp", "small-resnet"])
def test_a_models_sizes_follow_the_data(name: str) -> None:
    for shape in ((1, 8, 8), (3, 5, 7)):
        assert build_model(ModelConfig(name=name), dataset(shape, 3))(torch.zeros(2, *shape)).shape == (2, 3)


def test_initial_weights_follow_from_the_seed_alone_and_the_global_state_is_untouched() -> None:
    state = torch.random.get_rng_state()
    first = build_model(ModelConfig(name="mlp", seed=1), dataset((4,)))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again = build_model(ModelConfig(name="mlp", seed=1), dataset((4,)))
    other = build_model(ModelConfig(name="mlp", seed=2), dataset((4,)))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[0].weight, other[0].weight)  # type: ignore[index]


def test_a_callable_in_a_file_gets_its_args_and_what_it_asks_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef make(classes, width=2):\n    return nn.Linear(width, classes)\n")
    model = build_model(ModelConfig(name=f"{file}:make", args={"width": 3}), dataset((3,), 4))
    assert model.weight.shape == (4, 3)  # type: ignore[union-attr]


def test_a_class_in_a_package_is_found_by_name() -> None:
    model = build_model(ModelConfig(name="torch.nn:Linear", args={"in_features": 2, "out_features": 3}), dataset((2,)))
    assert isinstance(model, nn.Linear)


def test_a_module_given_as_an_object_is_used_as_it_is() -> None:
    module = nn.Linear(2, 3).train()
    assert build_model(ModelConfig(module=module), dataset((2,))) is module
    assert module.training


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(name="jsc-tinny"), "model.name: unknown model 'jsc-tinny'. Did you mean 'jsc-tiny'"),
        (ModelConfig(name="jsc-tiny", args={"h1": 3}), "model.args: unknown argument 'h1'"),
        (ModelConfig(name="jsc-three-linear", args={"h3": 3}), "model.args: unknown argument 'h3'. Known: h1, h2."),
        (ModelConfig(name="no_such_package.net:make"), "must be a module that can be imported"),
        (ModelConfig(name="torch.nn:Linnear"), "unknown name 'Linnear'. Did you mean 'Linear'"),
        (
            ModelConfig(name="torch.nn:Linear", args={"in_features": 2}),
            "model.args: torch.nn:Linear cannot be built with",
        ),
        (ModelConfig(name="builtins:dict"), "must return an nn.Module, got dict"),
        (ModelConfig(name="absent.py:make"), "absent.py: must be a readable file"),
        (ModelConfig(name="small-resnet"), "samples must be images"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(config: ModelConfig, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(config, dataset((16,)))
    assert message in str(caught.value)


def test_a_file_that_raises_is_named_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"net\.py: must run without error, but raised ZeroDivisionError"):
        build_model(ModelConfig(name=f"{tmp_path / 'net.py'}:make"), dataset((16,)))


def test_a_callable_that_raises_is_named_with_its_error_and_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make():\n    raise RuntimeError('no weights today')\n")
    with pytest.raises(
        ConfigError, match=r"model\.name: .*net\.py:make .*RuntimeError at .*net\.py:2: no weights today"
    ):
        build_model(ModelConfig(name=f"{tmp_path / 'net.py'}:make"), dataset((16,)))


def test_data_of_another_shape_than_a_jsc_network_needs_names_the_data_sets_that_fit() -> None:
    with pytest.raises(ConfigError, match="digits-4x4"):
        build_model(ModelConfig(name="jsc-tiny"), dataset((64,)))


def test_digits_come_in_the_shape_that_the_model_needs() -> None:
    for name, shape in (("jsc-three-linear", (16,)), ("mlp", (64,))):
        model, data = load_model_and_data(RunConfig(model=ModelConfig(name=name), data=DataConfig(name="digits")))
        assert data.input_shape == shape
        assert model(data.test.inputs[0]).shape == (len(data.test), 10)
