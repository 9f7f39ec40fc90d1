"""Makes the toy detector importable, here and in the processes that tests start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]

sys.path.insert(0, str(FOLDER))


class Toy:
    """Runs ``train_net.py`` on the toy config with outputs in one folder."""

    config = str(FOLDER / "toy_config.py")

    def __init__(self, output_dir):
        self.output_dir = Path(output_dir)

    def arguments(self, *arguments):
        return ["--config-file", self.config, "--seed", "5", *arguments, self._output()]

    def _output(self):
        return f"train.output_dir={self.output_dir}"

    def run(self, *arguments):
        """In this process; returns the exit status."""
        from vfnet_yolof.engine import command_line

        return command_line(self.arguments(*arguments))

    def start(self, *arguments, **environment):
        """In a process of its own; returns it when it has ended."""
        path = os.pathsep.join([str(REPOSITORY / "projects"), str(FOLDER)])
        return subprocess.run(
            [
                sys.executable,
                str(REPOSITORY / "tools" / "train_net.py"),
                *self.arguments(*arguments),
            ],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def load(self, name="model_final"):
        return torch.load(self.output_dir / f"{name}.pth", weights_only=True)


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path / "run")


@pytest.fixture
def make_toy(tmp_path):
    return lambda name: Toy(tmp_path / name)
