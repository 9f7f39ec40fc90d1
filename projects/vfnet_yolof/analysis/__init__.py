"""Studies of detectors: what they cost, and what their matching rules choose."""

from .cost import Cost, PartCost, build_without_memory, count

__all__ = ["Cost", "PartCost", "build_without_memory", "count"]
