"""What single values of annotations mean, in files and in registered functions."""

from __future__ import annotations

import math
import numbers
from typing import Any

NO_AREA = -1.0
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}


def numbers_of(value: Any, length: int) -> list[float] | None:
    """A list of ``length`` numbers, None where it is no such list. NaN and infinity are numbers."""
    if not isinstance(value, list) or len(value) != length:
        return None
    if not all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in value):
        return None
    try:
        return [float(x) for x in value]
    except OverflowError:
        return None


def flag(value: Any) -> bool | None:
    """A flag as a boolean, 0 or 1, as text or missing; None where it is something else."""
    if value is None:
        return False
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def area(value: Any) -> float | None:
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
