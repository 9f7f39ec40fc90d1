"""Runs ``train_net.py`` on the toy detector, in this process or in others."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from prepared_python import Prepared

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
TOOL = str(REPOSITORY / "tools" / "train_net.py")


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
        from vfnet_yolof.cli.training import command_line

        return command_line(self.arguments(*arguments))

    def start(self, *arguments, **options):
        """In a process of its own; returns it when it has ended. Options as of :meth:`begin`."""
        process = self.begin(*arguments, **options)
        process.stdout, process.stderr = process.communicate(timeout=240)
        return process

    def begin(self, *arguments, torchrun=0, restarts=0, shell="", prepared=True, **environment):
        """In a process of its own, or below torchrun in so many; returns it at once.

        restarts: how often torchrun starts them again.
        shell: a command that does something first and then becomes ``"$0" "$@"``.
        prepared: with the imports behind it, where nothing comes before Python.
        """
        if prepared and not (torchrun or shell or "PYTHONPATH" in environment):
            return Prepared(TOOL, self.arguments(*arguments), environment)
        path = os.pathsep.join([str(REPOSITORY / "projects"), str(FOLDER)])
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--max-restarts={restarts}", "--nproc-per-node"]
        return subprocess.Popen(
            [
                *(["bash", "-c", shell] if shell else []),
                *(sys.executable, *([*launcher, str(torchrun)] if torchrun else []), TOOL),
                *self.arguments(*arguments),
            ],
            env={
                **os.environ,
                "PYTHONPATH": path,
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, for signals to all of it
        )

    def log(self):
        return (self.output_dir / "log.txt").read_text()

    def tagged(self):
        """The name of the checkpoint that ``--resume`` continues from."""
        return (self.output_dir / "last_checkpoint").read_text().removesuffix(".pth")

    def load(self, name="model_final"):
        return torch.load(self.output_dir / f"{name}.pth", weights_only=True)
