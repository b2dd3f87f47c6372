"""Checkpoints in and out; nothing is ever unpickled.

`.safetensors` files are read with safetensors, all others with `torch.load(weights_only=True)`, which takes tensors and
plain containers alone. A state dict may stand by itself, or under `state_dict` as Lightning and others write it, and
its names may carry a wrapper's prefix.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dovetail.errors import CheckpointError, unknown_name

__all__ = ["load_checkpoint", "read_checkpoint", "save_checkpoint"]

_NESTS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("model.", "module.", "net.", "_orig_mod.")


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Copy a checkpoint's tensors into a model's parameters and buffers, all of them or none.

    Raises:
        CheckpointError: The file is missing, corrupt, or its tensors are not the model's: the message names the first
        that is missing, not known, of another shape or holds NaN.
    """
    tensors = _named_as(model, read_checkpoint(path))
    own = model.state_dict()
    counters = {
        name for name in own if name.endswith("num_batches_tracked")
    }  # older files lack them; eval ignores them
    if missing := [name for name in own if name not in tensors and name not in counters]:
        raise CheckpointError(
            f"{path}: lacks {_some(missing)}, which the model has. Is it the checkpoint of another model?"
        )
    if extra := [name for name in tensors if name not in own]:
        raise CheckpointError(f"{path}: {unknown_name('tensor', extra[0], own)} The model has {len(own)} tensors.")
    for name in [name for name in own if name in tensors]:
        tensor = tensors[name]
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{path}: {name!r} must have shape {tuple(own[name].shape)} as in the model, got "
                f"{tuple(tensor.shape)}. "
                "Give [model] args the sizes that the checkpoint was trained with."
            )
        if tensor.is_floating_point() and (num_nan := int(tensor.isnan().sum())):
            raise CheckpointError(
                f"{path}: {name!r} must be numbers, got NaN in {num_nan:,} of its {tensor.numel():,} elements. Did the "
                "training that wrote it diverge?"
            )
    model.load_state_dict(own | tensors)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, on the CPU.

    Raises:
        CheckpointError: The file is missing or corrupt, or holds more than tensors and plain containers.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file}: must be a file; there is none. `dovetail train CONFIG` makes one.")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols; what it cannot read it refuses
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _state_dict(content, file)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's text advises to unpickle it all the same
            reason = "it is damaged, or holds other Python objects. Save the model's state_dict() alone"
        raise CheckpointError(
            f"{file}: must be a readable .safetensors file, or a .pt or .ckpt of tensors alone (nothing is "
            f"unpickled): {reason}"
        ) from error


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write a model's parameters and buffers as safetensors; the file appears whole or not at all.

    Raises:
        CheckpointError: The file cannot be written.
    """
    file = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as handle:
            temporary = Path(handle.name)
            handle.write(safetensors.torch.save(tensors))
        os.replace(temporary, file)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{file}: cannot be written: {error.strerror}.") from error


def _state_dict(content: object, file: Path) -> dict[str, Tensor]:
    for nest in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
            break
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{file}: must hold a state dict (names to tensors), got {type(content).__name__}.")
    return dict(content)


def _named_as(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's names: a wrapper's prefix that all but metrics' tensors carry is taken off."""
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    for prefix in _PREFIXES:
        if own <= set(tensors):
            return tensors
        inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if own <= set(inner) or len(inner) == len(tensors):
            return inner
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
