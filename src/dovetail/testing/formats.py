"""The laws of number formats, for authors of new ones: `check_format(fmt)` raises at the first broken law.

A format that is idempotent, on its grid, monotone, and careful with shapes, dtypes and gradients can be used at every
site, in PTQ and in QAT. Give a calibrated format (one whose `needs_calibration` is False).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats import NVFP4, Binary, Format, Logarithmic, ScaledInteger, Ternary, fake_quantise, fused, parse
from dovetail.formats.blocked import Blocked
from dovetail.formats.blocks import WHOLE
from dovetail.formats.carrier import limit
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.references import reference

__all__ = ["FORMAT_LAWS", "check_format", "sample_values"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPES = ((), (0,), (1,), (33,), (3, 40), (2, 3, 32), (2, 4, 3, 3), (0, 5))


def check_format(fmt: Format) -> None:
    """Run every law.

    Raises:
        AssertionError: a law is broken; the message says which and where.

    Example:
        >>> check_format(parse("fixed(8,4)"))
    """
    for law in FORMAT_LAWS:
        law(fmt)


def sample_values(fmt: Format, seed: int = 0) -> Tensor:
    """Float32 values that try a format: random over its range and far beyond, its own values, midpoints, zeros."""
    generator = torch.Generator().manual_seed(seed)
    span = fmt.maximum if math.isfinite(fmt.maximum) and 0 < fmt.maximum < 1e6 else 10.0
    parts = [
        torch.randn(400, generator=generator) * span / 3,
        torch.randn(400, generator=generator) * 2.0 ** torch.randint(-20, 20, (400,), generator=generator),
        torch.tensor([0.0, -0.0, 1e30, -1e30, 1e-30, -1e-30]),
    ]
    grid = _grid(fmt)
    if grid is not None:
        chosen = grid[np.unique(np.linspace(0, len(grid) - 1, 600).astype(int))]
        middles = (chosen[1:] + chosen[:-1]) / 2
        parts += [torch.from_numpy(np.concatenate([chosen, middles])).float()]
    return torch.cat(parts)


def law_text_form_reads_back(fmt: Format) -> None:
    """`parse(str(fmt)) == fmt`, and equal formats hash equally."""
    again = parse(str(fmt))
    assert again == fmt, f"{fmt}: its text reads back as {again!r}."
    assert hash(again) == hash(fmt), f"{fmt}: its text reads back with another hash."


def law_facts_agree(fmt: Format) -> None:
    """Bits, limits and step are of a kind: positive, ordered, and the limits round to themselves."""
    assert fmt.element_bits >= 1, f"{fmt}: element_bits must be positive."
    assert fmt.bits >= fmt.element_bits, f"{fmt}: bits must count the element's."
    assert fmt.block_size >= 1, f"{fmt}: block_size must be positive."
    assert fmt.minimum < fmt.maximum, f"{fmt}: minimum must be below maximum."
    assert 0 < fmt.step <= fmt.maximum, f"{fmt}: step must be positive and at most the maximum."
    assert fmt.calibrate(torch.ones(3)) == fmt, f"{fmt}: a concrete format must calibrate to itself."


def law_elements_are_values_before_the_scale(fmt: Format) -> None:
    """They ascend, have codes, and are the format's own values where no scale is shared or read off data."""
    grid = _grid(fmt)
    try:
        elements = fmt.element_values()
    except FormatError:
        assert grid is None, f"{fmt}: its values are known, those of an element are not."
        return
    assert (np.diff(elements) > 0).all(), f"{fmt}: element_values must ascend."
    assert len(elements) <= 2**fmt.element_bits, f"{fmt}: {len(elements)} values have no codes of their own."
    assert grid is None or np.array_equal(elements, grid), f"{fmt}: element_values differ from values."


def law_storage_adds_up(fmt: Format) -> None:
    """Storage is exact: elements, plus shared scales; the same for arrays of sizes as one by one."""
    sizes = np.array([1, 7, 32, 100], dtype=np.int64)
    together = np.broadcast_to(fmt.storage_bits((3, sizes)), sizes.shape)
    singly = [fmt.storage_bits((3, int(size))) for size in sizes]
    assert together.tolist() == singly, f"{fmt}: storage of arrays {together.tolist()} is not that of ints {singly}."
    least = [3 * int(size) * fmt.element_bits for size in sizes]
    assert all(bits >= low for bits, low in zip(singly, least, strict=True)), f"{fmt}: storage lacks elements' bits."


def law_shape_dtype_device_are_kept(fmt: Format) -> None:
    """Any shape, empty and 0-d included, any float dtype."""
    for dtype in DTYPES:
        for shape in SHAPES:
            x = torch.ones(shape, dtype=dtype)
            y = fmt.quantise(x)
            assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device), (
                f"{fmt}: turned {x.dtype} {tuple(x.shape)} into {y.dtype} {tuple(y.shape)}."
            )


def law_input_is_untouched(fmt: Format) -> None:
    """`quantise` is pure: the same result twice, the input bit-identical after."""
    x = sample_values(fmt)
    before = x.clone()
    first, second = fmt.quantise(x), fmt.quantise(x)
    assert _same_bits(x, before), f"{fmt}: quantise changed its input."
    assert _same_bits(first, second), f"{fmt}: two calls on equal tensors differ."
    assert first.data_ptr() != x.data_ptr() or x.numel() == 0, f"{fmt}: quantise must return a new tensor."
    assert _same_bits(fmt.quantise_(x), first), f"{fmt}: quantise_ differs from quantise."


def law_idempotent(fmt: Format) -> None:
    """Rounding twice is rounding once, in every carrier."""
    if isinstance(fmt, NVFP4) or (isinstance(fmt, Binary) and fmt.stochastic):
        return  # stated in their docstrings
    for dtype in DTYPES:
        once = fmt.quantise(sample_values(fmt).to(dtype))
        twice = fmt.quantise(once)
        assert torch.equal(once.nan_to_num(), twice.nan_to_num()), f"{fmt}: not idempotent in {dtype}."


def law_on_grid(fmt: Format) -> None:
    """Every result is one of the format's values (in a coarser carrier: the carrier's value for one)."""
    grid = _grid(fmt)
    if grid is None:
        return
    for dtype in DTYPES:
        result = fmt.quantise(sample_values(fmt).to(dtype))
        held = torch.from_numpy(grid).to(dtype)
        inside = torch.isin(result[result.isfinite()], held)
        stray = result[result.isfinite()][~inside]
        top = torch.tensor([limit(value, dtype) for value in (fmt.minimum, fmt.maximum)], dtype=dtype)
        stray = stray[~torch.isin(stray, top)]
        assert stray.numel() == 0, f"{fmt}: {stray[:3].tolist()} are not among its values in {dtype}."


def law_nearest(fmt: Format) -> None:
    """No value of the format is nearer than the result; formats that state another rule are exempt."""
    grid = _grid(fmt)
    if grid is None or isinstance(fmt, (Binary, Ternary)):
        return
    x = sample_values(fmt).double()
    x = x[(x >= fmt.minimum) & (x <= fmt.maximum)]
    result = fmt.quantise(x)
    if isinstance(fmt, Logarithmic):
        x, result, grid = x[x > 0].log2(), result[x > 0].log2(), np.log2(grid[grid > 0])
        x = x.clamp_min(float(grid[0]))
    place = np.clip(np.searchsorted(grid, x.numpy()), 1, max(len(grid) - 1, 1))
    best = np.minimum(np.abs(x.numpy() - grid[place - 1]), np.abs(x.numpy() - grid[place]))
    distance = (x - result).abs().numpy()
    worst = float((distance - best).max())
    bound = 2.0**-23 * float(np.abs(grid).max()) if isinstance(fmt, ScaledInteger) else 0.0  # 1 / scale is rounded
    assert worst <= bound, f"{fmt}: a value is nearer than the result by {worst}."


def law_equals_its_slow_reference(fmt: Format) -> None:
    """Block by block what `formats.references` computes exactly, in float32 and float64; its own formats only."""
    x = sample_values(fmt)[:: 4 if fmt.block_size == 1 else 1]
    if isinstance(fmt, Blocked):
        x = torch.cat([x, x.new_zeros(-len(x) % 40)]).reshape(-1, 40)  # 40: partial blocks too
    for tensor, carrier in ((x, np.float32), (x.double(), np.float64)):
        if isinstance(fmt, FixedPoint) and float(carrier(fmt.maximum)) != fmt.maximum:
            continue  # limits are cut to the carrier's
        result = fmt.quantise(tensor)
        for place in _block_places(fmt, x.shape):
            block, found = tensor[place].flatten().tolist(), result[place].flatten().tolist()
            try:
                expected = reference(fmt, block, carrier)
            except FormatError:
                return
            assert found == expected, f"{fmt}: {block} became {found}, by its definition {expected}."


def _block_places(fmt: Format, shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Where in a tensor each block lies; elements by themselves where there are none."""
    sizes = dict(fmt.blocks.dims(len(shape))) if isinstance(fmt, Blocked) else {}
    steps = [length if sizes.get(dim) == WHOLE else sizes.get(dim, 1) for dim, length in enumerate(shape)]
    for corner in itertools.product(*(range(0, length, step) for length, step in zip(shape, steps, strict=True))):
        yield tuple(slice(start, start + step) for start, step in zip(corner, steps, strict=True))


def law_monotone(fmt: Format) -> None:
    """x <= y gives quantise(x) <= quantise(y); for block formats, within a block."""
    if isinstance(fmt, Binary) and fmt.stochastic:
        return
    x = sample_values(fmt)
    if not isinstance(fmt, Blocked):
        ordered = fmt.quantise(x.sort().values)
        assert (ordered[1:] >= ordered[:-1]).all(), f"{fmt}: not monotone."
        return
    x = x[x.abs() < 1e20]
    x = torch.cat([x, x.new_zeros(-len(x) % 40)]).reshape(-1, 40)
    result = fmt.quantise(x)
    for place in _block_places(fmt, x.shape):
        ordered = result[place].flatten()[x[place].flatten().argsort()]
        assert (ordered[1:] >= ordered[:-1]).all(), f"{fmt}: not monotone."


def law_nan_stays_visible(fmt: Format) -> None:
    """NaN never turns into a number."""
    x = torch.full((3,), math.nan)
    assert fmt.quantise(x).isnan().all(), f"{fmt}: NaN became a number."


def law_layout_does_not_matter(fmt: Format) -> None:
    """Transposed, strided and large tensors round as their contiguous, small copies do."""
    x = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
    strided = x.t().contiguous().t()
    assert torch.equal(fmt.quantise(strided), fmt.quantise(x)), f"{fmt}: a transposed layout changes the result."
    spaced = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(fmt.quantise(spaced), fmt.quantise(x)), f"{fmt}: a strided layout changes the result."
    if isinstance(fmt, Binary) and fmt.stochastic:
        return
    large = x.repeat(1, 64)
    assert torch.equal(fmt.quantise(large), fmt.quantise(x).repeat(1, 64)), f"{fmt}: large tensors round differently."


def law_gradient_is_straight_through(fmt: Format) -> None:
    """Forward is quantise; backward is the upstream gradient where `in_range`, else zero."""
    x = sample_values(fmt).requires_grad_()
    upstream = torch.full_like(x, 3.0)
    y = fake_quantise(x, fmt)
    torch.autograd.backward(y, upstream)
    mask = fmt.in_range(x.detach())
    expected = upstream if mask is None else torch.where(mask, upstream, 0.0)
    assert _same_bits(y.detach(), fmt.quantise(x.detach())), f"{fmt}: fake_quantise is not quantise."
    assert x.grad is not None, f"{fmt}: no gradient came back."
    assert torch.equal(x.grad, expected), f"{fmt}: the gradient is not straight-through."


def law_works_under_vmap(fmt: Format) -> None:
    """`torch.func.vmap` over a batch gives each sample's result."""
    x = torch.randn(4, 33, generator=torch.Generator().manual_seed(2))
    together = torch.func.vmap(lambda row: fake_quantise(row, fmt))(x)
    singly = torch.stack([fmt.quantise(row) for row in x])
    assert torch.equal(together, singly), f"{fmt}: vmap differs from one by one."


def law_works_under_autocast(fmt: Format) -> None:
    """Autocast changes neither the dtype nor a bit of the result."""
    x = sample_values(fmt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fmt.quantise(x)
    assert _same_bits(inside, fmt.quantise(x)), f"{fmt}: autocast changes the result."


def law_loops_agree_with_tensor_operations(fmt: Format) -> None:
    """Where loops in machine code round large tensors, bits are the same, in place too; NaN may be another NaN."""
    special = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -1e-45, 1.5e-38, 3.4e38, -3.4e38])
    parts = torch.cat([special, sample_values(fmt)])
    ragged = parts.repeat(fused.SMALLEST // len(parts) + 1)
    rows = ragged[: fused.SMALLEST].reshape(-1, 64)
    for x in (tensor.to(dtype) for tensor in (ragged, rows, rows.t()) for dtype in DTYPES):
        expected = _rounded(fmt, x, loops=False)
        assert _same_bits(_rounded(fmt, x, loops=True), expected), f"{fmt}: a loop changes bits in {x.dtype}."
        assert _same_bits(_rounded(fmt, x, loops=True, in_place=True), expected), (
            f"{fmt}: a loop that overwrites its input changes bits in {x.dtype}."
        )


def _rounded(fmt: Format, x: Tensor, *, loops: bool, in_place: bool = False) -> Tensor:
    """Every NaN is the same one."""
    before = fused.use(loops)
    try:
        result = fmt.quantise_(x.clone()) if in_place else fmt.quantise(x)
    finally:
        fused.use(before)
    return torch.where(result.isnan(), math.nan, result)


FORMAT_LAWS: tuple[Callable[[Format], None], ...] = (
    law_text_form_reads_back,
    law_facts_agree,
    law_elements_are_values_before_the_scale,
    law_storage_adds_up,
    law_shape_dtype_device_are_kept,
    law_input_is_untouched,
    law_idempotent,
    law_on_grid,
    law_nearest,
    law_equals_its_slow_reference,
    law_monotone,
    law_nan_stays_visible,
    law_layout_does_not_matter,
    law_gradient_is_straight_through,
    law_works_under_vmap,
    law_works_under_autocast,
    law_loops_agree_with_tensor_operations,
)


def _grid(fmt: Format) -> NDArray[np.float64] | None:
    try:
        return fmt.values()
    except FormatError:
        return None


def _same_bits(a: Tensor, b: Tensor) -> bool:
    integer = {4: torch.int32, 2: torch.int16, 8: torch.int64}[a.element_size()]
    return torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))
