"""Averaged weights beside the parts they are made of, each evaluated."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from ..config.options import ConfigError
from ..config.read import RunFlags, read
from ..config.yaml_files import Trust, add_trust_arguments, trust_from
from ..engine.checkpoints import AVERAGE, AVERAGE_PART
from ..engine.run import evaluate_model, use_device
from .compare import spread, write_text


class Scores(NamedTuple):
    """One metric of the parts, in their order, and of the average."""

    parts: list[float]
    average: float


def command_line(description: str, arguments: Sequence[str] | None = None) -> int:
    """``tools/compare_average.py``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="output folders of runs with train.swa.keep_parts")
    parser.add_argument("--metric", default="AP", help="of the boxes; AP by default")
    parser.add_argument("--markdown", help="write the table to this file as well")
    add_trust_arguments(parser)
    args = parser.parse_args(arguments)
    trust = trust_from(args)
    try:
        text = table(args.runs, [scores_of(Path(run), args.metric, trust) for run in args.runs])
    except (ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    if args.markdown:
        write_text(args.markdown, text + "\n")
    return 0


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


def table(runs: Sequence[str], scores: Sequence[Scores]) -> str:
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
