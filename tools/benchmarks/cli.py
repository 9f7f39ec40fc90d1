"""Arguments of ``tools/benchmark.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measures import Report, Settings

_EPILOG = """examples:
  %(prog)s inference --config-file vfnet/vfnet_r50_fpn_1x.py
  %(prog)s inference --config-file gfl/gfl_r50_fpn_1x.py --device cuda --size 800 1333 --compiled
  %(prog)s train --config-file gfl/gfl_r50_fpn_1x.py --batch 2 --size 320 480
  %(prog)s costs yolof/yolof_r50_c5_1x.py baselines/retinanet_plus_r50_fpn_1x.py --batch 8 2
  %(prog)s gpu --json gpu.json
  %(prog)s table --json table.json --markdown docs/performance.md
  %(prog)s runtimes --prepare exported --files exported --json runtimes.json
"""
WITH_CONFIG = ("inference", "train", "losses", "dataload")
WITH_SIZE = (*WITH_CONFIG, "costs", "gpu")
GROUPED = ("table", "gpu")  # many measures, one file


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
        ("costs", "detectors side by side: training memory and step, inference, multiply-adds"),
        ("table", "every measure that has a target"),
        ("gpu", "the R-50 detectors on a GPU: training and inference, float32, AMP and half"),
    ):
        _arguments(commands.add_parser(name, help=what, description=what), name)
    what = "PyTorch, onnxruntime and OpenVINO, in 32, 16 and 8 bits, and MMDetection"
    _runtimes_arguments(commands.add_parser("runtimes", help=what, description=what))
    return parser


def _runtimes_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--prepare", metavar="DIR", help="write the files of all detectors there; takes minutes")
    add(
        "--calibration",
        metavar="FOLDER",
        help="with --prepare: images that the int8 files are calibrated on (images of noise)",
    )
    add("--files", metavar="DIR", help="measure the files that --prepare has written there")
    add("--detectors", nargs="+", metavar="NAME", help="VFNet, GFL, YOLOF (all)")
    add("--threads", type=int, default=2, help="of each runtime (2)")
    add("--rounds", type=int, default=9, help="in which all variants take their turn (9)")
    add("--json", metavar="FILE", help="write all figures here")
    add("--markdown", metavar="FILE", help="put the tables between the marks in this document")


def _arguments(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    on_gpu = name == "gpu"
    add("--device", default="cuda" if on_gpu else "cpu", help="cpu, cuda or cuda:N")
    add("--threads", type=int, default=2, help="on the CPU")
    add("--repeats", type=int, default=9, help="rounds in which all variants take their turn")
    add("--warmup", type=int, default=2, help="runs of each variant before")
    add("--json", metavar="FILE", required=name in GROUPED, help="write all figures here")
    if name in WITH_CONFIG:
        add("--config-file", required=True, help="file or name of a packaged config")
        add("--batch", type=int, default=1, help="images")
    if name == "costs":
        add("configs", nargs="+", metavar="CONFIG", help="files or names of packaged configs")
        what = "images of a training step: one number for all configs, or one for each (2)"
        add("--batch", type=int, nargs="+", default=[2], metavar="N", help=what)
    if on_gpu:
        add("--batch", type=int, default=8, help="images of a training step (8)")
    if name in WITH_SIZE:
        size = (800, 1333) if on_gpu else (480, 640)
        add("--size", type=int, nargs=2, default=size, metavar=("H", "W"), help="pixels")
        add("--boxes", type=int, default=10, help="of the ground truth of each image")
    if name == "inference":
        add("--compiled", action="store_true", help="measure torch.compile as well")
        add("--no-peer", action="store_true", help="leave MMDetection out")
    if name == "eval":
        add("--images", type=int, default=5000)
    if name == "table":
        add("--markdown", metavar="FILE", help="put the table between the marks in this document")
    if name in GROUPED:
        add("--only", nargs="+", metavar="GROUP", help="such as star; a wrong one lists all")
        add("--again", action="store_true", help="measure what the JSON file has, too")


def measure(args: argparse.Namespace, settings: Settings) -> list[Report]:
    """The reports of any command but those that are :data:`GROUPED`."""
    from . import data_measures, measures
    from .costs import costs

    if args.command == "costs":
        return costs(args.configs, args.batch, settings)
    if args.command == "inference":
        options = {"compiled": args.compiled, "peer": not args.no_peer}
        return [measures.inference(args.config_file, settings, **options)]
    if args.command == "eval":
        return [data_measures.evaluation(settings, images=args.images)]
    with_config = {
        "train": measures.training,
        "losses": measures.losses,
        "dataload": data_measures.data_loading,
    }
    if args.command in with_config:
        return [with_config[args.command](args.config_file, settings)]
    return [
        {
            "assign": measures.assignment,
            "postprocess": measures.postprocess,
            "star": measures.star_convolution,
        }[args.command](settings)
    ]


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
    if args.command == "runtimes":
        return _run_runtimes(args)
    from .report import as_markdown, as_text, machine, replace_table, write_json

    try:
        settings = _settings(args)
        if args.command in GROUPED:
            from .table import R50, gpu_groups, measure_table, table_rows

            groups = gpu_groups(R50, args.batch) if args.command == "gpu" else None
            options = {"groups": groups, "only": args.only, "again": args.again}
            content = measure_table(args.json, settings, **options)
            if args.command == "table" and args.markdown:
                replace_table(args.markdown, as_markdown(table_rows(content)))
            return 0
        reports = measure(args, settings)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(as_text(report) for report in reports))
    if args.command == "costs":
        from .costs import cost_table

        print("\n" + cost_table(reports))
    if args.json:
        found = [report.as_dict() for report in reports]
        content = found[0] if len(found) == 1 else {"reports": found}
        write_json({"machine": machine(), **content}, args.json)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """How to measure.

    Raises:
        ValueError: there is no such device; ``gpu`` on a CPU.
    """
    from vfnet_yolof.config.inference import default_device

    from .measures import Settings

    device = default_device(args.device)
    if args.command == "gpu" and device.type != "cuda":
        raise ValueError(f"gpu measures a CUDA device, not {device}")
    given = {name: getattr(args, name) for name in ("repeats", "warmup")}
    if args.command in WITH_SIZE:
        given |= {"size": tuple(args.size), "boxes": args.boxes}
    if args.command in WITH_CONFIG:
        given["batch"] = args.batch
    return Settings(device=str(device), **given)


def _run_runtimes(args: argparse.Namespace) -> int:
    from .report import as_markdown, as_text, replace_table, require_marks
    from .runtime_files import DETECTORS, prepare, require_known
    from .runtimes import MARKS, left_out_line, measure_runtimes, times_table

    if not args.prepare and not args.files:
        print("error: name a folder: --prepare DIR, --files DIR, or both", file=sys.stderr)
        return 2
    detectors = args.detectors or tuple(DETECTORS)
    try:
        if args.markdown:
            require_marks(args.markdown, MARKS)
        require_known(detectors)
        if args.prepare:
            prepare(Path(args.prepare), calibration=args.calibration, detectors=detectors)
        if not args.files:
            return 0
        content = measure_runtimes(
            Path(args.files),
            rounds=args.rounds,
            threads=args.threads,
            detectors=detectors,
            json_path=args.json,
            tell=lambda report: print(as_text(report), flush=True),
        )
        rows = [row for one in content["detectors"].values() for row in one["rows"]]
        parts = (as_markdown(rows), times_table(content), left_out_line(content))
        tables = "\n\n".join(part for part in parts if part)
        print(tables)
        if args.markdown:
            replace_table(args.markdown, tables, MARKS)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
