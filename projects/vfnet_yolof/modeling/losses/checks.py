"""Numbers that a loss can be made with."""

import math
from numbers import Real


def check_nonnegative(**values: object) -> None:
    """Each of the named values is a finite number and not negative.

    A negative weight or exponent would train away from the target without an error.

    Raises:
        ValueError: one is not; names it.
    """
    for name, value in values.items():
        if not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def check_share(**values: object) -> None:
    """Each of the named values lies in [0, 1]; otherwise as :func:`check_nonnegative`."""
    for name, value in values.items():
        if not (isinstance(value, Real) and 0 <= value <= 1):
            raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
