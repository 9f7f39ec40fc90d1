"""Arguments of ``tools/benchmark.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measures import Report, Settings

_EPILOG = """examples:
  %(prog)s inference --config-file vfnet/vfnet_r50_fpn_1x.py
  %(prog)s inference --config-file gfl/gfl_r50_fpn_1x.py --device cuda --size 800 1333 --compiled
  %(prog)s train --config-file gfl/gfl_r50_fpn_1x.py --batch 2 --size 320 480
  %(prog)s table --json table.json --markdown docs/performance.md
"""
WITH_CONFIG = ("inference", "train", "losses", "dataload")


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure variants in turn in one process: medians, spread, ratios, memory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("inference", "a detector: eager, optimised, MMDetection's, and its convolution floor"),
        ("train", "a training step: eager, channels last, bfloat16, both; what the losses take"),
        ("assign", "assignment with few and many boxes"),
        ("losses", "assignment and losses with few and many boxes"),
        ("postprocess", "candidates and suppression"),
        ("star", "the star convolution and torchvision's operator"),
        ("eval", "COCO evaluation and pycocotools"),
        ("dataload", "data loading beside a training step"),
        ("table", "every measure that has a target"),
    ):
        _arguments(commands.add_parser(name, help=what, description=what), name)
    return parser


def _arguments(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add("--threads", type=int, default=2, help="on the CPU")
    add("--repeats", type=int, default=9, help="rounds in which all variants take their turn")
    add("--warmup", type=int, default=2, help="runs of each variant before")
    add("--json", metavar="FILE", required=name == "table", help="write all figures here")
    if name in WITH_CONFIG:
        add("--config-file", required=True, help="file or name of a packaged config")
        add("--batch", type=int, default=1, help="images")
        add("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="pixels")
        add("--boxes", type=int, default=10, help="of the ground truth of each image")
    if name == "inference":
        add("--compiled", action="store_true", help="measure torch.compile as well")
        add("--no-peer", action="store_true", help="leave MMDetection out")
    if name == "eval":
        add("--images", type=int, default=5000)
    if name == "table":
        add("--markdown", metavar="FILE", help="put the table between the marks in this document")
        add("--only", nargs="+", metavar="GROUP", help="such as star; a wrong one lists all")
        add("--again", action="store_true", help="measure what the JSON file has, too")


def measure(args: argparse.Namespace, settings: Settings) -> Report:
    """The report of any command but ``table``."""
    from . import data_measures, measures

    if args.command == "inference":
        return measures.inference(
            args.config_file, settings, compiled=args.compiled, peer=not args.no_peer
        )
    if args.command == "eval":
        return data_measures.evaluation(settings, images=args.images)
    with_config = {
        "train": measures.training,
        "losses": measures.losses,
        "dataload": data_measures.data_loading,
    }
    if args.command in with_config:
        return with_config[args.command](args.config_file, settings)
    return {
        "assign": measures.assignment,
        "postprocess": measures.postprocess,
        "star": measures.star_convolution,
    }[args.command](settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit status."""
    args = argument_parser().parse_args(arguments)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        return _run(args)
    finally:
        torch.set_num_threads(threads)  # another number rounds sums otherwise


def _run(args: argparse.Namespace) -> int:
    from .measures import Settings
    from .report import as_markdown, as_text, machine, replace_table, write_json
    from .table import measure_table, table_rows

    settings = Settings(device=args.device, repeats=args.repeats, warmup=args.warmup)
    if args.command in WITH_CONFIG:
        settings = Settings(
            device=args.device,
            repeats=args.repeats,
            warmup=args.warmup,
            batch=args.batch,
            size=tuple(args.size),
            boxes=args.boxes,
        )
    try:
        if args.command == "table":
            content = measure_table(args.json, settings, only=args.only, again=args.again)
            if args.markdown:
                replace_table(args.markdown, as_markdown(table_rows(content)))
            return 0
        report = measure(args, settings)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_text(report))
    if args.json:
        write_json({"machine": machine(), **report.as_dict()}, args.json)
    return 0
