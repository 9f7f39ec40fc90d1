"""What is wrong with a data set: kinds of faults, how often, and where first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

SHOWN = 5  # entries named per fault


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
        """Raises ValueError that begins with ``what`` and names the faulty entries, if any."""
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
