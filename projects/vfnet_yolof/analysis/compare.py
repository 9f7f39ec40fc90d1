"""Several configs, several seeds, one table; resumable."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..utils.files import write_atomically

TRAIN = "import sys; from vfnet_yolof.cli.training import command_line; sys.exit(command_line())"
DONE = "finished.json"


def compare(
    configs: Sequence[str],
    seeds: Sequence[int],
    output: str,
    metrics: Sequence[str],
    common: Sequence[str],
    markdown: str | None,
    command: str,
) -> int:
    """Train and print the table; returns the exit status of the first run that fails, else 0.

    Args:
        configs: files or packaged names. output: folder of all runs.
        metrics: columns of the table, as ``metrics.json`` names them.
        common: arguments of ``tools/train_net.py`` that all runs get.
        markdown: file for the table and the ``command`` that made it, or None.

    Raises:
        ValueError: two configs would share a run's folder.
    """
    stems = [Path(config).stem for config in configs]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ValueError(
            f"{', '.join(twice)}: several configs have this name and would share a folder below "
            f"{output}; each must have a name of its own."
        )
    # Seeds in the outer loop: every config has had as many runs as the others at any time.
    for seed in seeds:
        for config in configs:
            status = run(config, seed, run_folder(output, config, seed), common)
            if status:
                print(f"error: {config}, seed {seed} failed ({status})", file=sys.stderr)
                return status
    text = table(configs, seeds, output, metrics)
    print(text)
    if markdown:
        write_text(markdown, f"{text}\n\nMade by\n\n    {command}\n")
    return 0


def run_folder(output: str, config: str, seed: int) -> Path:
    """Where the run of ``config`` with ``seed`` keeps its files."""
    return Path(output) / f"{Path(config).stem}_seed{seed}"


def run(config: str, seed: int, folder: Path, common: Sequence[str]) -> int:
    """Train one config unless that is done; the exit status of the training."""
    if (folder / DONE).exists():
        return 0
    command = [sys.executable, "-c", TRAIN, "--config-file", config, "--resume", *common]
    command += ["--seed", str(seed), "--output-dir", str(folder)]
    print(f"{config}, seed {seed}: {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(folder / "output.txt", "a", encoding="utf-8") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if status:
        print(f"see {folder / 'output.txt'}", file=sys.stderr)
        return status
    result = {**last_metrics(folder), "minutes": (time.monotonic() - start) / 60}
    write_text(folder / DONE, json.dumps(result, indent=1))
    return 0


def last_metrics(folder: Path) -> dict[str, float]:
    """The figures of the last evaluation that the run logged.

    Raises:
        ValueError: it logged none.
    """
    for line in reversed((folder / "metrics.json").read_text().splitlines()):
        metrics = json.loads(line)
        if "bbox/AP" in metrics:
            return {k: v for k, v in metrics.items() if k.startswith("bbox/")}
    raise ValueError(f"{folder / 'metrics.json'} holds no evaluation; is train.eval_period 0?")


def table(configs: Sequence[str], seeds: Sequence[int], output: str, metrics: Sequence[str]) -> str:
    """Markdown: for each config mean, standard deviation and every seed's value."""
    lines = [
        "| config | " + " | ".join(m.removeprefix("bbox/") for m in metrics) + " | minutes |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for config in configs:
        results = [
            json.loads((run_folder(output, config, seed) / DONE).read_text()) for seed in seeds
        ]
        cells = [spread([_number(r[m]) for r in results]) for m in metrics]
        minutes = statistics.mean(r["minutes"] for r in results)
        lines.append(f"| {config} | {' | '.join(cells)} | {minutes:.1f} |")
    return "\n".join(lines)


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # null is what JSON has for NaN


def spread(values: Sequence[float]) -> str:
    """``mean +- standard deviation (each value)``."""
    each = ", ".join(f"{v:.1f}" for v in values)
    if len(values) < 2:
        return each
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({each})"


def write_text(path: str | Path, text: str) -> None:
    """Write a text file and the folders it is in; an interruption leaves the old file."""
    write_atomically(path, lambda stream: stream.write(text.encode()))
