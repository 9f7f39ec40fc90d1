"""Makes the toy detector importable, here and in the processes that tests start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def toy(make_toy):
    return make_toy("run")


@pytest.fixture
def make_toy(tmp_path):
    from toy_runs import Toy

    return lambda name: Toy(tmp_path / name)
