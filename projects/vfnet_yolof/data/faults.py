"""Checks of single values of a data set, and what is wrong with it: how often, and where first."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

SHOWN = 5  # entries named per fault
NO_AREA = -1.0
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}


@dataclass(frozen=True)
class Fault:
    """One kind of fault: how often it occurs and where first."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = f", ... ({self.count} in all)" if self.count > len(self.examples) else ""
        return f"{self.what}: {', '.join(self.examples)}{more}"


@dataclass
class Faults:
    """``errors`` stop training and evaluation, ``warnings`` and ``notes`` do not."""

    errors: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def error(self, what: str, examples: Iterable[Any]) -> None:
        _add(self.errors, what, examples)

    def warn(self, what: str, examples: Iterable[Any]) -> None:
        _add(self.warnings, what, examples)

    def require_no_errors(self, what: str) -> None:
        """Check that there is no error.

        Raises:
            ValueError: there is; the message begins with ``what`` and names the faulty entries.
        """
        if self.errors:
            faults = "\n".join(f"  {fault}" for fault in self.errors)
            raise ValueError(f"{what}:\n{faults}")


def _add(faults: list[Fault], what: str, examples: Iterable[Any]) -> None:
    entries = list(examples)
    if entries:
        faults.append(Fault(what, len(entries), tuple(map(shown, islice(entries, SHOWN)))))


def shown(value: Any) -> str:
    """A value for a message: printable on one line whatever it is, and not long."""
    text = value if isinstance(value, str) else _repr(value)
    if not text.isprintable():  # ends of lines, a terminal's commands, halves of surrogate pairs
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        return f"a {type(value).__name__}"


def as_numbers(value: Any, length: int) -> list[float] | None:
    """A list of ``length`` numbers, None where it is no such list. NaN and infinity are numbers."""
    if not isinstance(value, list) or len(value) != length:
        return None
    if not all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in value):
        return None
    try:
        return [float(x) for x in value]
    except OverflowError:
        return None


def as_flag(value: Any) -> bool | None:
    """A flag as a boolean, 0 or 1, as text or missing; None where it is something else."""
    if value is None:
        return False
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def as_area(value: Any) -> float | None:
    """The area in square pixels; ``NO_AREA`` where there is none, None where it cannot be one."""
    if value is None:
        return NO_AREA
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
