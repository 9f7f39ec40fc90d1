"""Which location learns which box. Assigners know no model and no loss.

:class:`vfnet_yolof.modeling.assigners.hungarian.HungarianAssigner` needs scipy, so it is imported
from there.
"""

from .atss import ATSSAssigner
from .fcos import FCOSAssigner
from .match import Assigner, Match, PairMatch, SingleMatch
from .max_iou import MaxIoUAssigner
from .uniform import UniformAssigner

__all__ = [
    "ATSSAssigner",
    "Assigner",
    "FCOSAssigner",
    "Match",
    "MaxIoUAssigner",
    "PairMatch",
    "SingleMatch",
    "UniformAssigner",
]
