"""Scalars for the training log."""

from detectron2.utils.events import get_event_storage
from torch import Tensor


def log_scalar(name: str, value: float) -> None:
    """Log ``value`` if a trainer is listening; outside of one there is nothing to log to."""
    try:
        storage = get_event_storage()
    except AssertionError:
        return
    storage.put_scalar(name, value)


def log_tensor(name: str, value: Tensor, period: int = 20) -> None:
    """:func:`log_scalar` for a number on the device, in every ``period``-th iteration only.

    Reading it makes the host wait for the device, which a step should not do.
    """
    try:
        iteration = get_event_storage().iter
    except AssertionError:
        return
    if iteration % period == 0:
        log_scalar(name, float(value))
