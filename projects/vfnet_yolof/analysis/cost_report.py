"""``tools/analyze_model.py``: what the detectors of config files cost, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from ..config.inference import read_inference_config
from ..config.yaml_files import Trust, add_trust_arguments, trust_from
from .compare import write_text
from .cost import Cost, build_without_memory, count


def analyze(
    config: str,
    size: tuple[int, int],
    overrides: Sequence[str] = (),
    trust: Trust | None = None,
) -> Cost:
    """Cost of the detector of a config file; arguments as of ``tools/analyze_model.py``.

    Raises:
        FileNotFoundError, ValueError, TypeError: no such file, a wrong override, or no detector
            whose parts can be told apart; the message names it.
    """
    build = read_inference_config(config, overrides, trust).build_model
    try:
        return count(build_without_memory(build), size)
    except TypeError as error:
        raise TypeError(f"{config}: {error}") from error


def table(costs: Mapping[str, Cost]) -> str:
    """Markdown: millions of parameters, and 10^9 multiply-adds of each part."""
    rows = [
        [
            name,
            f"{cost.parameters / 1e6:.2f}",
            *(f"{part.multiply_adds / 1e9:.1f}" for part in cost),
            f"{cost.multiply_adds / 1e9:.1f}",
        ]
        for name, cost in costs.items()
    ]
    headers = ["config", "parameters (M)", "backbone (G)", "neck (G)", "head (G)", "total (G)"]
    return tabulate(rows, headers, "pipe", disable_numparse=True, colalign=["left"] + ["right"] * 5)


def command_line(description: str, argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/analyze_model.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="files, or names of packaged configs")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=("H", "W"),
        help="of the image in pixels (default: 800 1344)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, too")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="changes to every config"
    )
    add_trust_arguments(parser)
    args = parser.parse_args(argv)
    trust = trust_from(args)
    size = (args.size[0], args.size[1])
    try:
        costs = {config: analyze(config, size, args.set, trust) for config in args.configs}
        if args.json:
            content = {config: cost.as_dict() for config, cost in costs.items()}
            text = json.dumps({"size": list(size), "configs": content}, indent=2)
            write_text(Path(args.json), text + "\n")
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(costs))
    return 0
