"""Training, prediction and evaluation of the small VFNet beside other programs.

    python tools/benchmarks/busy.py
    python tools/benchmarks/busy.py --repeats 5 --what train predict --json busy.json

Each command runs as a user would start it, alone, beside one and beside two processes that count in
a loop, in turn. Beside the times of whole commands, which include the start of Python and the
imports, stand those of one training iteration and one evaluated image, which do not. The ratios are
those to the run alone of the same round. `--environment OMP_WAIT_POLICY=ACTIVE` runs everything a
second time with that set, in turn with the plain runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIG = "vfnet/vfnet_small_shapes.py"
COMMAND = (sys.executable, "-W", "ignore", "-m", "vfnet_yolof")
BUSY = (0, 1, 2)
WHAT = ("train", "predict", "evaluate")
_PER_IMAGE = re.compile(r"Total inference time: \S+ \(([\d.]+) s / iter")

Figures = dict[str, float]  # of one run, by what they are: seconds
Runs = dict[str, list[Figures]]  # by setting, one entry for each round


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many other processes that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


class Commands:
    """The three commands, in a folder that has what they need."""

    def __init__(self, folder: Path, iterations: int, images: int) -> None:
        self.folder, self.iterations = folder, iterations
        # One run for the data, and for the weights that the other commands need.
        self._call({}, *self._train("weights", 2))
        shown = sorted((folder / "datasets").rglob("*.png"))[:images]
        if not shown:
            raise SystemExit(f"error: the first training has left no images in {folder}")
        self.images = [str(path) for path in shown]

    def run(self, what: str, environment: dict[str, str]) -> Figures:
        """Run one of :data:`WHAT`; seconds of the whole and, where it says them, of its parts."""
        run = self.folder / "run"
        if what == "train":
            seconds, _ = self._call(
                environment, *self._train(str(run), self.iterations), "--overwrite"
            )
            lines = map(json.loads, (run / "metrics.json").read_text().splitlines())
            times = [line["time"] for line in lines if "time" in line]
            return {"train": seconds, "train, iteration": statistics.median(times[3:])}
        if what == "predict":
            given = ("weights", *self.images, "--output", str(self.folder / "drawn"))
            return {"predict": self._call(environment, "predict", *given, *_CPU)[0]}
        seconds, said = self._call(environment, "evaluate", "weights", *_CPU)
        found = _PER_IMAGE.search(said)
        each = {"evaluate, image": float(found[1])} if found else {}
        return {"evaluate": seconds, **each}

    def _train(self, output: str, iterations: int) -> tuple[str, ...]:
        changes = (f"train.max_iter={iterations}", "train.eval_period=0", "train.log_period=1")
        return ("train", CONFIG, "--output", output, *_CPU, *changes)

    def _call(self, environment: dict[str, str], *arguments: str) -> tuple[float, str]:
        began = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"error: {' '.join(arguments)} has failed:\n{done.stdout[-2000:]}")
        return time.perf_counter() - began, done.stdout


_CPU = ("--device", "cpu")


def measure(commands: Commands, args: argparse.Namespace) -> Runs:
    """All runs of all rounds, printed as they come."""
    settings = {"": {}}
    if args.environment:
        settings[" ".join(args.environment)] = dict(x.split("=", 1) for x in args.environment)
    runs: Runs = {f"{beside} {name}".strip(): [] for name in settings for beside in BUSY}
    for number in range(args.repeats):
        for name, environment in settings.items():
            for beside in BUSY:
                figures: Figures = {}
                with busy_processes(beside):
                    for what in args.what:
                        figures |= commands.run(what, environment)
                runs[f"{beside} {name}".strip()].append(figures)
                shown = "; ".join(f"{key} {value:.3f} s" for key, value in figures.items())
                print(f"round {number + 1}, beside {beside} {name}: {shown}", flush=True)
    return runs


def summary(runs: Runs) -> str:
    """For each figure and setting the median, and the ratios to the first setting's by round."""
    alone, lines = runs["0"], []
    for key in alone[0]:
        for setting, rounds in runs.items():
            ratios = [mine[key] / first[key] for mine, first in zip(rounds, alone, strict=True)]
            lines.append(
                f"{key}, beside {setting}: "
                f"median {statistics.median(x[key] for x in rounds):.3f} s, "
                f"{statistics.median(ratios):.2f} times alone: "
                + " ".join(f"{ratio:.2f}" for ratio in ratios)
            )
    return "\n".join(lines)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--what", nargs="+", choices=WHAT, default=WHAT, help="commands (all)")
    add("--repeats", type=int, default=3, help="rounds in which all take their turn (3)")
    add("--iterations", type=int, default=60, help="of a training (60)")
    add("--images", type=int, default=400, help="of a prediction (400)")
    add(
        "--environment",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="run everything with these set as well",
    )
    add("--json", metavar="FILE", help="write all figures there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argument_parser()
    args = parser.parse_args(arguments)
    if args.repeats < 1 or args.images < 1 or args.iterations < 5:
        parser.error("at least one round, one image and five iterations")
    if wrong := [text for text in args.environment if "=" not in text]:
        parser.error(f"--environment takes NAME=VALUE, not {wrong[0]}")
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(Commands(Path(folder), args.iterations, args.images), args)
    print(summary(runs))
    if args.json:
        Path(args.json).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
