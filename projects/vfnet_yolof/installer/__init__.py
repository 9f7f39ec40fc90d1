"""Detectron2 0.6, repaired and installed; the standard library is all it needs."""
