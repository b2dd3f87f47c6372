"""Checkpoints load whole or not at all, and nothing is ever unpickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dovetail.errors import CheckpointError
from dovetail.models import load_checkpoint, save_checkpoint


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_saved_model_loads_back_bit_for_bit(tmp_path: Path) -> None:
    one, other = net(), net()
    save_checkpoint(one, tmp_path / "deep" / "m.safetensors")
    load_checkpoint(other, tmp_path / "deep" / "m.safetensors")
    assert equal(one, other)
    assert os.listdir(tmp_path / "deep") == ["m.safetensors"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "hyper_parameters": {"lr": 0.1}},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {**{f"model.{k}": v for k, v in state.items()}, "loss.weight": torch.ones(2)}},
    ],
    ids=["plain", "nested", "lightning", "data-parallel", "lightning with other tensors"],
)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_torch_files_load_plain_nested_and_prefixed(tmp_path: Path, wrap, suffix: str) -> None:
    one, other = net(), net()
    torch.save(wrap(one.state_dict()), tmp_path / f"m{suffix}")
    load_checkpoint(other, tmp_path / f"m{suffix}")
    assert equal(one, other)


def test_a_file_without_batch_counters_loads(tmp_path: Path) -> None:
    one, other = net(), net()
    save_file({k: v for k, v in one.state_dict().items() if "num_batches" not in k}, tmp_path / "m.safetensors")
    load_checkpoint(other, tmp_path / "m.safetensors")
    assert equal(one, other)


class Harmful:
    """Pickled so that loading it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    for name, write in (
        ("a.pt", lambda f: torch.save({"w": Harmful(tmp_path / "made")}, f)),
        ("b.ckpt", lambda f: f.write_bytes(pickle.dumps(Harmful(tmp_path / "made")))),
    ):
        write(tmp_path / name)
        with pytest.raises(CheckpointError, match=r"nothing is unpickled.*state_dict\(\) alone") as caught:
            load_checkpoint(net(), tmp_path / name)
        assert "weights_only" not in str(caught.value)  # torch's advice would unpickle it
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_another_shape_names_the_tensor_and_both_shapes_and_changes_nothing(tmp_path: Path) -> None:
    save_checkpoint(net(4), tmp_path / "m.safetensors")
    model = net(3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"'0\.weight' must have shape \(3, 2\) as in the model, got \(4, 2\)"):
        load_checkpoint(model, tmp_path / "m.safetensors")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_checkpoint_with_nan_names_the_tensor_and_changes_nothing(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in net().state_dict().items()}
    tensors["0.weight"][1, 0] = float("nan")
    save_file(tensors, tmp_path / "m.safetensors")
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"'0\.weight' must be numbers, got NaN in 1 of its 6 elements"):
        load_checkpoint(model, tmp_path / "m.safetensors")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(3, 2)}, tmp_path / "few.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks '0\.bias'"):
        load_checkpoint(net(), tmp_path / "few.safetensors")
    save_file({**net().state_dict(), "0.wieght": torch.zeros(1)}, tmp_path / "many.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown tensor '0\.wieght'. Did you mean '0\.weight'"):
        load_checkpoint(net(), tmp_path / "many.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.ckpt"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut off"])
def test_a_corrupt_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"must be a readable \.safetensors"):
        load_checkpoint(net(), tmp_path / name)


def test_a_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    for name in ("m.safetensors", "m.pt"):
        file = tmp_path / name
        save_checkpoint(net(), file) if name.endswith("safetensors") else torch.save(net().state_dict(), file)
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(CheckpointError):
            load_checkpoint(net(), file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: must be a file; there is none"):
        load_checkpoint(net(), tmp_path / "absent.pt")


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder must be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(net(), tmp_path / "taken" / "m.safetensors")
