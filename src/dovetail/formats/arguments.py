"""The text form of formats, `name(argument, key=value, ...)`, and reading its arguments with precise errors."""

from __future__ import annotations

import re

from dovetail.errors import FormatError, unknown_name

__all__ = ["Arguments"]

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*")


class Arguments:
    """The arguments of one format's text, taken one by one; `finish` complains about what is left.

    Words (`affine`, `channel`) may stand anywhere; other arguments by position or as `key=value`.
    """

    def __init__(self, text: str) -> None:
        match = _CALL.fullmatch(text)
        if match is None:
            raise FormatError(f"format {text!r}: must look like name or name(argument, key=value).")
        self.text = text.strip()
        self.name: str = match[1]
        parts = [part.strip() for part in match[2].split(",")] if match[2] else []
        self._keyed: dict[str, str] = {}
        self._positional: list[str] = []
        for part in parts:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                self._positional.append(part)
            elif key in self._keyed:
                raise FormatError(f"format {self.text!r}: {key} is given twice.")
            else:
                self._keyed[key] = value

    def word(self, *choices: str, default: str) -> str:
        """Which of the words is among the arguments; `default` (usually one of them) where none is."""
        present = [part for part in self._positional if part in choices]
        if len(present) > 1:
            raise FormatError(f"format {self.text!r}: {' and '.join(present)} exclude each other. Keep one.")
        for part in present:
            self._positional.remove(part)
        return present[0] if present else default

    def flag(self, word: str) -> bool:
        """Whether the word is among the arguments."""
        return self.word(word, default="") == word

    def raw(self, key: str) -> str | None:
        """The text given as `key=...`, else the next positional argument, else None."""
        if key in self._keyed:
            return self._keyed.pop(key)
        return self._positional.pop(0) if self._positional else None

    def keyed(self, key: str) -> str | None:
        """The text given as `key=...`, else None."""
        return self._keyed.pop(key, None)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        given = self.raw(key)
        if given is None:
            return self._default(key, default)
        return self.whole(key, given)

    def keyed_integer(self, key: str, default: int) -> int:
        """A whole number that can only be given as `key=...`."""
        given = self.keyed(key)
        return default if given is None else self.whole(key, given)

    def number(self, key: str, given: str) -> float:
        """A text as a float, exact through `repr`."""
        try:
            return float(given)
        except ValueError:
            raise FormatError(f"format {self.text!r}: {key} must be a number, got {given!r}.") from None

    def finish(self) -> None:
        """Raises FormatError if an argument was not used."""
        left = [*self._positional, *(f"{key}={value}" for key, value in self._keyed.items())]
        if left:
            raise FormatError(f"format {self.text!r}: {self.name} does not take {', '.join(left)}.")

    def unknown(self, known: list[str]) -> FormatError:
        """The error for a name that no table has."""
        return FormatError(unknown_name("format", self.name, known))

    def whole(self, key: str, given: str) -> int:
        """A text as a whole number."""
        if not re.fullmatch(r"[+-]?\d+", given):
            raise FormatError(f"format {self.text!r}: {key} must be a whole number, got {given!r}.")
        return int(given)

    def _default(self, key: str, default: int | None) -> int:
        if default is None:
            raise FormatError(f"format {self.text!r}: {key} is missing.")
        return default
