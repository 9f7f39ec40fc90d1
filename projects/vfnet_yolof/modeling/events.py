"""Scalars for the training log."""

from detectron2.utils.events import get_event_storage


def log_scalar(name: str, value: float) -> None:
    """Log ``value`` if a trainer is listening; outside of one there is nothing to log to."""
    try:
        storage = get_event_storage()
    except AssertionError:
        return
    storage.put_scalar(name, value)
