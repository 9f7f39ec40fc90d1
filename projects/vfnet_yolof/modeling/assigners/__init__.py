"""Which location learns which box. Assigners know no model and no loss.

:class:`vfnet_yolof.modeling.assigners.hungarian.HungarianAssigner` needs scipy, so it is imported
from there.
"""

from .atss import ATSSAssigner
from .fcos import FCOSAssigner
from .fovea import FoveaAssigner
from .match import Assigner, Match, PairMatch, SingleMatch
from .max_iou import MaxIoUAssigner, MMDetMaxIoUAssigner
from .nearest_point import NearestPointAssigner
from .uniform import UniformAssigner

__all__ = [
    "ATSSAssigner",
    "Assigner",
    "FCOSAssigner",
    "FoveaAssigner",
    "MMDetMaxIoUAssigner",
    "Match",
    "MaxIoUAssigner",
    "NearestPointAssigner",
    "PairMatch",
    "SingleMatch",
    "UniformAssigner",
]
