"""Which location learns which box. Assigners know no model and no loss."""

from .atss import ATSSAssigner
from .fcos import FCOSAssigner
from .match import Match
from .uniform import UniformAssigner

__all__ = ["ATSSAssigner", "FCOSAssigner", "Match", "UniformAssigner"]
