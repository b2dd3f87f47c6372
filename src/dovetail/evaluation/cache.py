"""A cache of tensors with a byte budget, least recently used out first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["CacheStatistics", "ValueCache"]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache did so far.

    Args:
        hits: values found.
        misses: values that had to be computed.
        evictions: values that had to go for the budget.
        bytes: bytes held now.
        peak_bytes: the most bytes ever held.
        budget: the most bytes it may hold.
    """

    hits: int
    misses: int
    evictions: int
    bytes: int
    peak_bytes: int
    budget: int


class ValueCache:
    """Values under integer keys, at most `budget` bytes of them.

    Memory that several values share (views) is counted once and held until the last of them goes.

    Args:
        budget: bytes; with 0 nothing that has any is kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.hits = 0
        self.misses = 0
        self._evictions = 0
        self._bytes = 0
        self._peak = 0
        self._values: dict[int, Any] = {}  # least recently used first
        self._storages: dict[int, int] = {}  # storage -> how many values are in it

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: int) -> bool:
        return key in self._values

    @property
    def statistics(self) -> CacheStatistics:
        """What it did so far."""
        return CacheStatistics(self.hits, self.misses, self._evictions, self._bytes, self._peak, self.budget)

    def get(self, key: int) -> Any:
        """The value under a key, which becomes the most recently used; or None."""
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def put(self, key: int, value: Any) -> None:
        """Hold a value, at the cost of those used least recently; one above the budget by itself is not held."""
        self.pop(key)
        self._values[key] = value
        self._bytes += self._claim(value)
        while self._bytes > self.budget:
            self.pop(next(iter(self._values)))
            self._evictions += 1
        self._peak = max(self._peak, self._bytes)

    def pop(self, key: int) -> None:
        """Let a value go, if it is there."""
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= self._release(value)

    def clear(self) -> None:
        """Let all values go."""
        self._values.clear()
        self._storages.clear()
        self._bytes = 0

    def _claim(self, value: Any) -> int:
        added = 0
        for storage in _storages(value):
            pointer = storage.data_ptr()
            held = self._storages.get(pointer, 0)
            self._storages[pointer] = held + 1
            added += 0 if held else storage.nbytes()
        return added

    def _release(self, value: Any) -> int:
        freed = 0
        for storage in _storages(value):
            pointer = storage.data_ptr()
            held = self._storages[pointer] - 1
            if held:
                self._storages[pointer] = held
            else:
                del self._storages[pointer]
                freed += storage.nbytes()
        return freed


def _storages(value: Any) -> list[Any]:
    if isinstance(value, Tensor):
        return [value.untyped_storage()]
    if isinstance(value, (tuple, list)):
        return [storage for item in value for storage in _storages(item)]
    return []
