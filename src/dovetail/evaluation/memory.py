"""How much memory there is to use."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["default_budget", "free_memory", "is_out_of_memory"]

# How PyTorch's allocator for processors, and the GPU libraries that allocate memory of their own, say it.
_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that a device has free now.

    On a GPU what its driver reports; on CPUs, and GPUs that share their memory, `MemAvailable` of /proc/meminfo (free
    pages and caches that can be dropped), elsewhere the free pages that the system reports, or 4 GiB where it reports
    none.
    """
    device = torch.device(device)
    if device.type != "cpu" and hasattr(torch.get_device_module(device), "mem_get_info"):
        return int(torch.get_device_module(device).mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def default_budget(device: torch.device | str = "cpu") -> int:
    """Bytes that the cache may use where nothing else is said: a quarter of what is free."""
    return free_memory(device) // 4


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the processor's memory, is full: PyTorch's, NumPy's or Python's own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in str(error) for sign in _SIGNS)
