"""On what a test of :mod:`tests.gpu` runs: a GPU where there is one, and the CPU always."""

import pytest

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
on_each_device = pytest.mark.parametrize("device", DEVICES)
