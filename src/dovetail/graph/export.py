"""Export a model as a function of its parameters, with their channel dimensions symbolic."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.traceback import annotate, preserve_node_meta
from torch.utils._sympy.functions import FloorDiv

from dovetail.graph.calls import Call, CallMode, function_name
from dovetail.graph.heads import Heads, divide_embedding, find_heads, set_heads
from dovetail.graph.lines import model_line
from dovetail.graph.standins import stand_in
from dovetail.graph.steady import Calls, note_call

__all__ = ["Exported", "FixedBatchError", "expression", "shadow", "symbolic_export"]

CALL_KEY = "dovetail"


@dataclass(frozen=True, slots=True)
class Exported:
    """What the exporter gives back.

    Args:
        program: the exported program; its inputs are `names`, `sizes` and the model's inputs, in order.
        names: parameters and buffers.
        sizes: names of the sizes that are inputs of their own, between the tensors and the model's inputs.
        heads: the attention modules that these are of.
        bindings: value of each symbol in the model as it is.
        equations: pairs of sizes that are equal but were not made one, because divisions stand in them or they are sums
            of more symbols than the exporter solves for.
        pinned: by (tensor, dimension): the line of the model that made a size a constant, where one is known.
        calls: the calls that the model's code made.
    """

    program: ExportedProgram
    names: tuple[str, ...]
    sizes: tuple[str, ...]
    heads: tuple[Heads, ...]
    bindings: dict[sympy.Symbol, int]
    equations: tuple[tuple[sympy.Expr, sympy.Expr], ...]
    pinned: dict[tuple[str, int], str]
    calls: Calls


class FixedBatchError(Exception):
    """The export holds for the example's batch alone.

    Args:
        batch: the example's.
        line: the line of the model that made it a constant; empty where it is not known.
    """

    def __init__(self, batch: int, line: str):
        super().__init__(f"the batch became the constant {batch}")
        self.line = line


class Notes:
    """What is seen of a model's code that runs for the exporter: the line that made a symbol a constant, the calls, and
    sizes of heads that turned out to be those of others.

    An object of its own because the exporter undoes what a forward does to the containers among a module's attributes.
    """

    def __init__(self) -> None:
        self.pinned: dict[sympy.Symbol, str] = {}
        self.calls: Calls = {}
        self.shared: list[tuple[sympy.Expr, sympy.Expr]] = []


class Functional(nn.Module):
    """The model as f(tensors, sizes, inputs, kwargs), so that the shapes of its parameters can be symbolic."""

    def __init__(self, model: nn.Module, heads: tuple[Heads, ...]):
        super().__init__()
        self.model = [model]  # in a list, so that its parameters are not this module's own
        self.heads = heads
        self.notes = Notes()

    def forward(
        self, tensors: dict[str, Tensor], sizes: dict[str, Tensor], inputs: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        model = self.model[0]
        heads_of: dict[str, list[Any]] = {}
        for heads in self.heads:
            number, width = (sizes[name].shape[0] for name in heads.names)
            set_heads(model.get_submodule(heads.path), heads, number, width)
            heads_of[heads.path] = [(number * heads.repeats, width), (number, width)]

        calls = self.notes.calls = {}
        shared = self.notes.shared = []
        names = {id(tensors[name]): name for name, _ in model.named_parameters()}
        environment = _shape_environment((*tensors.values(), *inputs, *kwargs.values()))
        version = environment._replacements_version_counter if environment is not None else 0

        def annotated(call: Call, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            note_call(calls, names, call, args, kwargs)
            args, kwargs = stand_in(function_name(function), args, kwargs, heads_of.get(call.path, ()))
            nonlocal version
            with annotate({CALL_KEY: str(call)}):
                result = function(*args, **kwargs)
            if environment is not None and environment._replacements_version_counter != version:
                version = environment._replacements_version_counter
                for symbol in [s for s in environment.replacements if s not in self.notes.pinned]:
                    if environment.replace(symbol).is_Integer:
                        self.notes.pinned[symbol] = model_line()
            return result

        embedded = [
            heads_of[h.path][1] for h in self.heads if isinstance(model.get_submodule(h.path), nn.MultiheadAttention)
        ]

        def prepare(path: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if name != "multi_head_attention_forward" or path not in heads_of:
                return stand_in(name, args, kwargs, ())
            own = heads_of[path][1]
            found = divide_embedding(args[0].shape[-1], own, embedded)
            shared.extend(zip(map(expression, own), map(expression, found), strict=True))
            return stand_in(name, args, kwargs, (found,))

        with CallMode(model, annotated, prepare=prepare):
            output = torch.func.functional_call(model, tensors, inputs, kwargs)
        return output_tensors(output)


def first_tensor(output: Any) -> Tensor:
    """The first tensor of a model's output: itself, or the first in a tuple, mapping or dataclass (logits come first
    there)."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(values, (tuple, list)) or isinstance(output, Mapping):
        for value in values:
            if value is not None:
                return first_tensor(value)
    raise TypeError(f"a model must return a tensor, or a tuple or mapping with one; got {type(output).__name__}.")


def output_tensors(output: Any) -> tuple[Tensor, ...]:
    """The tensors of a model's output, the one that `first_tensor` gives first; in tuples and mappings of any depth."""
    first = first_tensor(output)
    return (first, *(tensor for tensor in _tensors(output) if tensor is not first))


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)


def shadow(model: nn.Module) -> nn.Module:
    """A copy of the module tree in eval mode on the very same tensors: what is done to it, the user's model does not
    see."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t for t in tensors}).eval()


def symbolic_export(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], *, constant: bool = False
) -> Exported:
    """Export f(parameters, inputs) with channel dimensions and the batch symbolic.

    Args:
        model: a shadow of the user's model.
        inputs: example inputs; the first dimension of each tensor is the batch and must not be 1.
        kwargs: example keyword inputs.
        constant: leave every width a constant, and only the batch symbolic.

    Raises:
        FixedBatchError: The model's code makes the batch a constant.
        Exception: Whatever the model's code and the exporter's own checks raise.
    """
    parameters = dict(model.named_parameters())
    heads = () if constant else find_heads(model)
    # A size of its own comes as the length of an empty-handed tensor: sizes of tensors have the range that substitution
    # needs.
    sizes = {n: torch.empty(v) for h in heads for n, v in zip(h.names, (h.number, h.width), strict=True)}
    tensors = {name: t.detach() for name, t in {**parameters, **dict(model.named_buffers())}.items()}
    kernels = kernel_parameters(model)
    shapes = {
        "tensors": {
            name: {i: Dim.STATIC if constant or (name in kernels and i > 1) else Dim.AUTO for i in range(t.ndim)}
            for name, t in tensors.items()
        },
        "sizes": {name: {0: Dim.AUTO} for name in sizes},
        "inputs": tuple(_input_shape(x) for x in inputs),
        "kwargs": {key: _input_shape(x) for key, x in kwargs.items()},
    }
    # Without duck shaping, equal sizes are not the same size.
    duck_shaping_off = fx_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
    with duck_shaping_off, preserve_node_meta(), torch.no_grad():
        functional = Functional(model, heads)
        program = export(functional, (tensors, sizes, inputs, dict(kwargs)), dynamic_shapes=shapes, strict=False)
    environment = _environment(program)
    _require_batch(environment, functional.notes.pinned)
    bindings = {symbol: int(size) for symbol, size in environment.backed_var_to_val.items()}
    return Exported(
        program,
        tuple(tensors),
        tuple(sizes),
        heads,
        bindings,
        _equations(environment, functional.notes.shared),
        _pinned(environment, functional.notes.pinned),
        functional.notes.calls,
    )


def kernel_parameters(model: nn.Module) -> set[str]:
    """Names of the weights of convolutions, whose dimensions from 2 on are kernel sizes and stay constants."""
    by_tensor = {id(p): name for name, p in model.named_parameters()}
    names = {name for name, p in model.named_parameters() if p.ndim > 3}
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd) and isinstance(module.weight, nn.Parameter):
            names.add(by_tensor[id(module.weight)])
    return names


def _input_shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {i: Dim.AUTO if i == 0 else Dim.STATIC for i in range(value.ndim)}
    return None


def _environment(program: ExportedProgram) -> ShapeEnv:
    values = (node.meta.get("val") for node in program.graph.nodes)
    first = next(value for value in values if isinstance(value, FakeTensor))
    environment = first.fake_mode.shape_env
    assert environment is not None, "the exporter always makes shapes symbolic"
    return environment


def _shape_environment(values: Iterable[Any]) -> ShapeEnv | None:
    sizes: Iterator[Any] = (size for value in values if isinstance(value, Tensor) for size in value.shape)
    first = next((size for size in sizes if isinstance(size, torch.SymInt)), None)
    return first.node.shape_env if first is not None else None


_SOURCE = re.compile(r"L\['tensors'\]\['([^']+)'\]\.size\(\)\[(\d+)\]")


_BATCH = re.compile(r"L\['(inputs|kwargs)'\]\[[^\]]+\]\.size\(\)\[0\]")


def _require_batch(environment: ShapeEnv, lines: dict[sympy.Symbol, str]) -> None:
    for symbol, sources in environment.var_to_sources.items():
        size = environment.replace(symbol)
        if size.is_Integer and any(_BATCH.fullmatch(str(source.name)) for source in sources):
            raise FixedBatchError(int(size), lines.get(symbol, ""))


def _pinned(environment: ShapeEnv, lines: dict[sympy.Symbol, str]) -> dict[tuple[str, int], str]:
    found = {}
    for symbol, sources in environment.var_to_sources.items():
        for source in sources:
            if symbol in lines and (match := _SOURCE.fullmatch(str(source.name))):
                found[match[1], int(match[2])] = lines[symbol]
    return found


def _equations(
    environment: ShapeEnv, shared: Iterable[tuple[sympy.Expr, sympy.Expr]]
) -> tuple[tuple[sympy.Expr, sympy.Expr], ...]:
    guards = dict.fromkeys(guard.expr.args for guard in environment.guards if isinstance(guard.expr, sympy.Eq))
    values = environment.backed_var_to_val
    pairs = [
        pair
        for left, right in (*shared, *guards)
        for pair in _solved(environment.replace(left), environment.replace(right), values)
    ]
    return tuple((left, right) for left, right in pairs if left != right and (left.is_Symbol or right.is_Symbol))


def _solved(
    left: sympy.Expr, right: sympy.Expr, values: Mapping[sympy.Symbol, int]
) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """An equation solved for symbols: the exporter leaves `3 s == 4 t`, and equal products, as they are.

    Factors of equal products (heads times their width, on two streams that meet) are equal one by one if their values
    are; those of a product that is a constant are constants.
    """
    if left.is_Symbol or right.is_Symbol:
        yield left, right
        return
    for side, other in ((left, right), (right, left)):
        number, rest = side.as_coeff_Mul()
        if rest.is_Symbol and number.is_Integer and number > 1 and rest not in other.free_symbols:
            yield rest, FloorDiv(other, number)
            return
        if other.is_Integer and _is_product(side):
            yield from ((factor, sympy.Integer(values[factor])) for factor in side.args)
            return
    if _is_product(left) and _is_product(right):
        rest = list(right.args)
        for factor in left.args:
            same = next((f for f in rest if values[f] == values[factor]), None)
            if same is not None:
                rest.remove(same)
                yield factor, same


def _is_product(size: sympy.Expr) -> bool:
    return bool(size.is_Mul) and all(factor.is_Symbol for factor in size.args)


def expression(size: int | torch.SymInt) -> sympy.Expr:
    """A size as a sympy expression."""
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
