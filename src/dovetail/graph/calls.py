"""Where a model's own code calls a torch function: the address at which functional calls become operations.

A call is named by the module that makes it, the function, and how many calls of that function the same module has made
before in this run. The numbering follows the model's Python code alone, so it is the same when the model is traced and
when it runs.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

__all__ = ["Call", "CallMode", "function_name"]


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One call of a torch function in a model's code.

    Args:
        path: dotted path of the module whose `forward` makes the call; empty for the model itself.
        function: name of the function, normalised by `function_name`. Calls on integers and booleans alone are counted
            apart, as `integer_NAME`: they have no sites, and libraries make others of them (for masks and positions)
            when a model is exported.
        index: how many calls of this function the module made before, counted from the start of the model's forward.
    """

    path: str
    function: str
    index: int

    def __str__(self) -> str:
        return f"{self.path}|{self.function}|{self.index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives."""
        path, function, index = text.split("|")
        return cls(path, function, int(index))


# Python's operators and torch's spellings of one function, so that `x + y`, `x += y` and `torch.add(x, y)` are counted
# alike.
_SPELLINGS = {
    "radd": "add",
    "iadd": "add",
    "isub": "sub",
    "subtract": "sub",
    "rmul": "mul",
    "imul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "true_divide": "div",
    "divide": "div",
    "rmatmul": "matmul",
    "imatmul": "matmul",
    "bmm": "matmul",
    "mm": "matmul",
    "concat": "cat",
    "concatenate": "cat",
    "rtruediv": "rdiv",
    "native_multi_head_attention": "multi_head_attention_forward",
}


def function_name(function: Callable[..., Any]) -> str:
    """The one name of a torch function, whatever its spelling; empty for what only reads an attribute.

    Example:
        >>> import torch
        >>> function_name(torch.Tensor.relu_), function_name(torch.Tensor.__iadd__)
        ('relu', 'add')
        >>> function_name(torch.Tensor.shape.__get__)
        ''
    """
    name: str = getattr(function, "__name__", type(function).__name__)
    if name in ("__get__", "__set__"):
        return ""
    name = name.strip("_")
    return _SPELLINGS.get(name, name)


# Python functions made of torch functions: the mode follows into them, so that each call inside is a call of its own.
_COMPOSITES = frozenset({F.multi_head_attention_forward})

Callback = Callable[[Call, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class CallMode(TorchFunctionMode):
    """While active, hands every torch-function call of a model's code to a callback, with its address.

    Only calls made while one of the model's modules runs are seen; the callback makes the call itself (or another in
    its place), and its result is what the model gets. Entering starts the numbering anew, so enter once for each
    forward of the model.

    Args:
        model: the model whose modules give calls their path; shared modules go by their first path. It is not changed.
        callback: `callback(call, function, args, kwargs) -> result`. Torch functions that it calls are not seen again.
        wanted: the calls to hand over, or None for all; others are made as they are.
        prepare: `prepare(path, name, args, kwargs) -> (args, kwargs)` for functions that are followed into and so have
            no call.

    Example:
        >>> import torch
        >>> seen = []
        >>> def note(call, function, args, kwargs):
        ...     seen.append(str(call))
        ...     return function(*args, **kwargs)
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> with CallMode(model, note):
        ...     y = model(torch.zeros(1, 2))
        >>> seen
        ['0|linear|0', '1|relu|0']
    """

    def __init__(
        self,
        model: nn.Module,
        callback: Callback,
        *,
        wanted: Mapping[Call, object] | frozenset[Call] | None = None,
        prepare: Callable[[str, str, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
        | None = None,
    ):
        super().__init__()
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._callback = callback
        self._wanted = wanted
        self._prepare = prepare
        self._thread: int | None = None
        self._running: list[str] = []
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._names: dict[Any, str] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        if not self._handles:  # following into a composite enters again: the numbering goes on
            self._thread = threading.get_ident()
            self._running = []
            self._counts.clear()
            self._handles = [
                register_module_forward_pre_hook(self._begin),
                register_module_forward_hook(self._end, always_call=True),
            ]
            self._depth = 0
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def _begin(self, module: nn.Module, _inputs: Any) -> None:
        if id(module) in self._paths and threading.get_ident() == self._thread:
            self._running.append(self._paths[id(module)])

    def _end(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        if id(module) in self._paths and threading.get_ident() == self._thread:
            self._running.pop()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = self._names.get(function)
        if name is None:
            name = self._names[function] = function_name(function)
        if not name or not self._running:
            return function(*args, **kwargs)
        if function in _COMPOSITES:
            if self._prepare is not None:
                args, kwargs = self._prepare(self._running[-1], name, args, kwargs)
            return self._follow(function, args, kwargs)
        path = self._running[-1]
        if _is_on_integers(args):
            name = f"integer_{name}"
        index = self._counts[path, name]
        self._counts[path, name] = index + 1
        call = Call(path, name, index)
        if self._wanted is not None and call not in self._wanted:
            return function(*args, **kwargs)
        return self._callback(call, function, args, kwargs)

    def _follow(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a composite's own body under this mode.

        Its first statement asks `has_torch_function`, which is true under a mode and would hand the call back to us for
        ever.
        """
        functional: Any = F
        ask = functional.has_torch_function
        functional.has_torch_function = _never
        try:
            with self:
                return function(*args, **kwargs)
        finally:
            functional.has_torch_function = ask


def _is_on_integers(args: tuple[Any, ...]) -> bool:
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors and args and isinstance(args[0], (tuple, list)):
        tensors = [value for value in args[0] if isinstance(value, Tensor)]
    return bool(tensors) and not any(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in tensors)


def _never(_arguments: Any) -> bool:
    return False
