"""Loops in machine code: the same bits wherever they take the place of tensor operations, and only there."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from dovetail.formats import Format, Integer, ScaledInteger, fused, parse
from dovetail.testing.formats import law_loops_agree_with_tensor_operations

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def _loops_are_used() -> Iterator[None]:
    before = fused.use(True)
    yield
    fused.use(before)


def calibrated(text: str) -> Format:
    return parse(text).calibrate(torch.randn(5000))


def without_loops(fmt: Format, x: Tensor) -> Tensor:
    fused.use(False)
    result = fmt.quantise(x)
    fused.use(True)
    return result


def count_loops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the loops that run from now on."""
    names: list[str] = []
    run = fused.run
    monkeypatch.setattr(
        fused, "run", lambda loop, *args, **kwargs: (names.append(loop.name), run(loop, *args, **kwargs))
    )
    return names


@pytest.mark.parametrize(
    "text",
    [
        "fixed(8,126)",
        "fixed(8,-126)",
        "fixed(24,12)",
        "fixed(64,32)",
        "ufixed(32,16)",
        "minifloat_ieee(32,8,127)",
        "mxfp4(block=all)",
        "mxfp4(block=1)",
        "mxfp4(axis=0)",
        "block_fp(16,8,127,block=3)",
        "block_fp(4,4,7,block=2x16)",
        "block_fp(2,1,0)",
        "block_minifloat(12,7,8)",
        "block_log(7,8)",
        "log(8,126)",
        "log(8,0)",
    ],
)
def test_formats_at_the_limits_of_float32_keep_their_bits(text: str) -> None:
    law_loops_agree_with_tensor_operations(calibrated(text))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("affine", [False, True])
def test_channels_keep_their_bits(axis: int, affine: bool) -> None:
    x = torch.randn(6, 40, 50)
    x[0, 0, :3] = torch.tensor([math.nan, math.inf, -0.0])
    for carrier in (x, x.double(), x.bfloat16(), x.transpose(0, 1).contiguous().transpose(0, 1)):
        fmt = Integer(8, affine=affine, axis=axis).calibrate(x.nan_to_num(0, 1, -1))
        expected = without_loops(fmt, carrier)
        for result in (fmt.quantise(carrier), fmt.quantise_(carrier.clone())):
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


def test_a_loop_runs_from_the_smallest_size_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    names = count_loops(monkeypatch)
    for text in ("fixed(8,4)", "int(8)", "E4M3FN", "log(4,5)", "ternary(mean)", "mxfp4"):
        calibrated(text).quantise(torch.randn(fused.SMALLEST - 32))
    assert names == []
    for text in ("fixed(8,4)", "int(8)", "E4M3FN", "log(4,5)", "ternary(mean)", "mxfp4"):
        calibrated(text).quantise(torch.randn(fused.SMALLEST))
    assert names == ["integers", "integers", "floats", "powers", "levels", "floats"]


@pytest.mark.parametrize("text", ["fixed(8,4)", "mxfp4"])
def test_what_is_traced_or_mapped_over_is_left_to_tensor_operations(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = count_loops(monkeypatch)
    fmt = parse(text)
    x = torch.randn(4, fused.SMALLEST)
    expected = without_loops(fmt, x)
    assert torch.equal(torch.func.vmap(fmt.quantise)(x), expected)
    traced = make_fx(lambda tensor: fmt.quantise(tensor))(x)
    assert torch.equal(traced(x), expected)
    assert torch.equal(traced(-x), without_loops(fmt, -x))
    assert fmt.quantise(torch.empty(4, fused.SMALLEST, device="meta")).shape == x.shape
    assert names == []


def test_large_tensors_are_shared_among_as_many_threads_as_torch_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 1000 * 32)
    channels = ScaledInteger(8, (0.125, 0.1875, 0.5), None, 0)
    formats = [calibrated("E4M3FN"), calibrated("mxfp4"), calibrated("nvfp4"), channels]
    expected = [without_loops(fmt, x) for fmt in formats]
    monkeypatch.setattr(fused, "_SHARE", 10_000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for fmt, rounded in zip(formats, expected, strict=True):
        assert torch.equal(fmt.quantise(x), rounded)
        assert torch.equal(fmt.quantise_(x.clone()), rounded)
    batch = torch.randn(2, 3, 40_000)
    assert torch.equal(replace(channels, axis=1).quantise(batch)[1], channels.quantise(batch[1]))


def test_several_threads_may_round_at_once() -> None:
    fmt = parse("mxfp8_e4m3")
    tensors = [torch.randn(100, 320) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(fmt.quantise, tensors * 4))
    for x, result in zip(tensors * 4, results, strict=True):
        assert torch.equal(result, without_loops(fmt, x))


def test_flushed_denormals_are_flushed_in_loops_too() -> None:
    x = torch.randn(fused.SMALLEST) * 2.0**-128
    for text in ("bfloat16", "minifloat_ieee(16,8,127)", "fixed(8,126)", "mxint8"):
        fmt = parse(text)
        try:
            torch.set_flush_denormal(True)
            assert torch.equal(fmt.quantise(x), without_loops(fmt, x))
        finally:
            torch.set_flush_denormal(False)


PROGRAM = """
import sys
import torch
from dovetail.formats import fused, parse

def round_them(size):
    x = torch.linspace(-9, 9, size)
    return [parse(text).quantise(x) for text in ("E4M3FN", "mxfp4")]

{body}
"""


def run_program(body: str, **environment: str) -> str:
    """What a new process prints, its warnings being errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(body=body)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("choice", "size", "is_imported"),
    [("", 500_000, False), ("", 1_000_000, True), ("1", 500_000, True), ("0", 1_000_000, False)],
)
def test_numba_is_imported_when_a_tensor_is_large_or_the_user_says_so(
    choice: str, size: int, is_imported: bool
) -> None:
    printed = run_program(f"round_them({size}); print('numba' in sys.modules)", DOVETAIL_FUSED=choice)
    assert printed == str(is_imported)


def test_numba_is_imported_when_many_smaller_tensors_have_paid_for_it() -> None:
    body = "fused._IMPORT_COSTS = 900_000; round_them(400_000); a = 'numba' in sys.modules; round_them(400_000)"
    assert run_program(f"{body}; print(a, 'numba' in sys.modules)") == "False True"


def test_without_numba_results_are_the_same() -> None:
    x = torch.linspace(-9, 9, 1_000_000)
    expected = [float(parse(text).quantise(x).double().square().sum()) for text in ("E4M3FN", "mxfp4")]
    body = """
sys.modules["numba"] = None
print([float(y.double().square().sum()) for y in round_them(1_000_000)], sys.modules.get("dovetail.formats.loops"))
"""
    assert run_program(body) == f"{expected} None"


def test_code_that_cannot_be_kept_is_compiled_again() -> None:
    body = """
from numba.core import caching
for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(lambda *arguments: None)
round_them(1_000_000)
print(len(sys.modules["dovetail.formats.loops"].floats.signatures))
"""
    assert run_program(body) == "1"


def test_a_forked_process_has_threads_of_its_own() -> None:
    body = """
import multiprocessing
torch.get_num_threads = lambda: 3
fused._SHARE = 10_000
first = round_them(1_000_000)
def child(queue):
    queue.put(all(torch.equal(a, b) for a, b in zip(first, round_them(1_000_000))))
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=child, args=(queue,))
import warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of forking with threads: what is tried here
process.start()
print(queue.get())
process.join()
"""
    assert run_program(body) == "True"
