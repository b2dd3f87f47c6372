"""Which line of the user's model is running, or was when an error came."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import torch

import dovetail

__all__ = ["error_line", "model_line"]

# Frames of these packages are ours or PyTorch's, never the model's.
_LIBRARIES = tuple(str(Path(str(package.__file__)).parent) for package in (torch, dovetail))


def model_line() -> str:
    """The innermost line of the model's own code that is running; empty where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if text := _line(frame.f_code.co_filename, frame.f_lineno):
            return text
        frame = frame.f_back
    return ""


def error_line(error: BaseException) -> str:
    """The innermost line of the model's own code on the way to an error; empty where there is none."""
    lines = [text for trace in _traces(error) if (text := _line(trace.tb_frame.f_code.co_filename, trace.tb_lineno))]
    return lines[-1] if lines else ""


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _line(file: str, number: int) -> str:
    if file.startswith(_LIBRARIES) or file.startswith("<") or "/importlib/" in file or "contextlib" in file:
        return ""
    code = linecache.getline(file, number).strip()
    return f"{file}:{number}: {code}" if code else ""
