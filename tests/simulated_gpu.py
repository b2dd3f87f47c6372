"""A GPU that is not there: tensors that say they are on one, computed on the processor, as strict as a real one.

An operator whose tensors are on two devices fails, as it would on a GPU, but for what PyTorch allows: a number (a
tensor without dimensions) on the processor, indices on the processor, copies. NumPy cannot read such a tensor. One that
is larger than the GPU's memory is `torch.OutOfMemoryError`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

__all__ = ["Gpu", "OnGpu", "register", "simulated_gpu"]

aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
_INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class OnGpu(Tensor):
    """A tensor of the device; `held` has its values."""

    __slots__ = ("held",)  # and so not among the attributes that a parameter's copy takes on
    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("only inside the mode")


class Gpu(TorchDispatchMode):
    def __init__(self, device: torch.device, largest: int) -> None:
        super().__init__()
        self.device, self.largest = device, largest
        self.operators = 0
        self.returned = 0  # bytes that were copied to the processor

    @property
    def emptied(self) -> int:
        """How often its allocator's cache was emptied."""
        return _module().emptied

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # of other operators; they come one by one
                return func.decompose(*args, **kwargs)
        flat, _ = tree_flatten((args, kwargs))
        ours = [x for x in flat if isinstance(x, OnGpu)]
        others = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, OnGpu)]
        target = kwargs.get("device")
        wanted = None if target is None else torch.device(target)
        goes = wanted is not None and wanted.type == self.device.type
        if not ours and not goes:
            return func(*args, **kwargs)
        if ours and func not in _COPIES and any(x.ndim for x in others):
            first = args[0] if args else None
            if func not in _INDEXING or not isinstance(first, OnGpu):
                raise RuntimeError(
                    f"{func}: expected all tensors to be on the same device, found {self.device} and cpu"
                )
        if goes and kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: expected a '{self.device}' device type for generator but found 'cpu'")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        kept = {id(x.held): x for x in ours}
        memory = {x.held.untyped_storage().data_ptr() for x in ours}
        held_args, held_kwargs = tree_map_only(OnGpu, lambda x: x.held, (args, kwargs))
        found = func(*held_args, **held_kwargs)
        stays = goes or (wanted is None and bool(ours) and not self._is_copy_to_cpu(func, args))
        self.operators += stays
        if ours and not stays:
            self.returned += sum(x.numel() * x.element_size() for x in tree_flatten(found)[0] if isinstance(x, Tensor))

        def wrap(x: Tensor) -> Tensor:
            if id(x) in kept:
                return kept[id(x)]
            is_new = x.untyped_storage().data_ptr() not in memory
            if is_new and x.numel() * x.element_size() > self.largest:
                raise torch.OutOfMemoryError("GPU out of memory. (simulated)")
            with torch.inference_mode(x.is_inference()):
                return OnGpu(x, self.device)

        return tree_map_only(Tensor, wrap, found) if stays else found

    def _is_copy_to_cpu(self, func: Any, args: Any) -> bool:
        return func is aten.copy_.default and not isinstance(args[0], OnGpu)


class _Module:
    """`torch.gpu`, as little of it as PyTorch and dovetail ask for."""

    def __init__(self) -> None:
        self.present, self.free, self.emptied = False, 0, 0
        self.state = torch.zeros(8, dtype=torch.uint8)

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.present

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def get_rng_state(self, device: object = None) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        self.state = state.clone()

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return self.free, self.free

    def empty_cache(self) -> None:
        self.emptied += 1


class _Hook(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _module().present

    def has_primary_context(self, device: int) -> bool:
        return _module().present

    def is_built(self) -> bool:
        return True


@functools.cache
def _module() -> _Module:
    """Makes "gpu" a device that PyTorch knows, once a process: before any backward pass, which counts devices, and in
    none that forks, as autograd then has a thread for the device."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    module = _Module()
    _setup_privateuseone_for_python_backend("gpu", backend_module=module, hook=_Hook())
    return module


def register() -> None:
    """Let PyTorch know the device, which is not there until `simulated_gpu`."""
    _module()


@contextmanager
def simulated_gpu(*, largest: int = 1 << 40, free: int = 1 << 30) -> Iterator[Gpu]:
    """The GPU, within this block.

    Args:
        largest: bytes of the largest tensor that it can hold.
        free: bytes that it says are free.
    """
    module = _module()
    module.present, module.free = True, free
    try:
        with Gpu(torch.device("gpu:0"), largest) as gpu:
            yield gpu
    finally:
        module.present = False
