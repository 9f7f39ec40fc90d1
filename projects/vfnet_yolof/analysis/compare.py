"""Tables of several runs: configs trained with several seeds, or averages beside their parts."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from ..config.options import ConfigError
from ..config.read import RunFlags, read
from ..config.yaml_files import Trust
from ..engine.checkpoints import AVERAGE, AVERAGE_PART
from ..engine.run import evaluate_model, use_device
from ..utils.files import write_atomically

TRAIN = "import sys; from vfnet_yolof.cli.training import command_line; sys.exit(command_line())"
DONE = "finished.json"


def run_all(
    configs: Sequence[str], seeds: Sequence[int], output: str, common: Sequence[str]
) -> int:
    """Train every config with every seed; the exit status of the first that fails, else 0.

    Args:
        configs: files or packaged names. output: folder of all runs.
        common: arguments of ``tools/train_net.py`` that all runs get.

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
    start, used = time.monotonic(), _cpu_of_children()
    with open(folder / "output.txt", "a", encoding="utf-8") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if status:
        print(f"see {folder / 'output.txt'}", file=sys.stderr)
        return status
    result = {
        **last_metrics(folder),
        "minutes": (time.monotonic() - start) / 60,
        "cpu_minutes": (_cpu_of_children() - used) / 60,
    }
    write_text(folder / DONE, json.dumps(result, indent=1))
    return 0


def _cpu_of_children() -> float:
    """Seconds of CPU, all threads together, of processes that were waited for."""
    times = os.times()
    return times.children_user + times.children_system


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


class Scores(NamedTuple):
    """One metric of the parts, in their order, and of the average."""

    parts: list[float]
    average: float


def scores_of(run: Path, metric: str, trust: Trust | None = None) -> Scores:
    """Evaluate all parts and the average of a run, as its own config says.

    Raises:
        FileNotFoundError: the folder lacks the config, the parts or the average.
        ConfigError: the evaluation does not give the metric.
    """
    parts = sorted(run.glob(f"{AVERAGE_PART.format(0)[:-2]}*.pth"))
    needed = [run / "config.yaml", run / f"{AVERAGE}.pth"]
    missing = [str(path) for path in needed if not path.is_file()]
    if missing or not parts:
        raise FileNotFoundError(
            f"{run}: {', '.join(missing) or 'the parts'} not found; train with "
            "train.swa.enabled=True train.swa.keep_parts=True to the end."
        )
    cfg = read(run / "config.yaml", flags=RunFlags(eval_only=True), trust=trust).cfg
    use_device(cfg)
    *of_parts, average = [_score(cfg, run, path, metric) for path in [*parts, needed[1]]]
    return Scores(of_parts, average)


def _score(cfg: DictConfig, run: Path, path: Path, metric: str) -> float:
    cfg = cfg.copy()
    OmegaConf.update(cfg, "train.init_checkpoint", str(path))
    OmegaConf.update(cfg, "train.output_dir", str(run / "evaluated" / path.stem))
    results = evaluate_model(cfg).get("bbox", {})
    if metric not in results:
        raise ConfigError(f"{run}: the evaluation gives no {metric}, but {sorted(results)[:8]}.")
    return results[metric]


def average_table(runs: Sequence[str], scores: Sequence[Scores]) -> str:
    """Markdown: a line for each run, and mean and spread over the runs."""
    lines = [
        "| run | parts | mean of the parts (lowest to highest) | last part | average | gain |",
        "|---" * 6 + "|",
    ]
    means = [statistics.mean(x.parts) for x in scores]
    gains = [x.average - mean for x, mean in zip(scores, means, strict=True)]
    for run, x, mean, gain in zip(runs, scores, means, gains, strict=True):
        lines.append(
            f"| {Path(run).name} | {len(x.parts)} | {mean:.2f} ({min(x.parts):.2f} to "
            f"{max(x.parts):.2f}) | {x.parts[-1]:.2f} | {x.average:.2f} | {gain:+.2f} |"
        )
    if len(scores) > 1:
        columns = [means, [x.parts[-1] for x in scores], [x.average for x in scores], gains]
        lines.append("| all | | " + " | ".join(spread(column) for column in columns) + " |")
    return "\n".join(lines)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file and the folders it is in; an interruption leaves the old file."""
    write_atomically(path, lambda stream: stream.write(text.encode()))
