"""Which location learns which box. Assigners know no model and no loss."""

from .atss import ATSSAssigner
from .fcos import FCOSAssigner

__all__ = ["ATSSAssigner", "FCOSAssigner"]
