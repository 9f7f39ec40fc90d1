"""Measuring: ``tools/benchmark.py``. Nothing else in the package imports this room."""
