"""``vfnet-yolof report``: why a detector fails, from its detections and the ground truth."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Command, add_output
from .main import PROG

if TYPE_CHECKING:
    from ..analysis.report import Report


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument(
        "--max-dets", type=int, default=100, help="of a class that count in an image (100)"
    )
    parser.add_argument(
        "--iou",
        type=float,
        default=0.5,
        help="from which a detection is a hit in curves, confusion and images (0.5)",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="SCORE",
        help="of confusion, histograms and images; by default each class's with the best F1",
    )
    parser.add_argument(
        "--worst-images", type=int, default=12, metavar="N", help="how many are drawn (12)"
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        required=True,
        metavar="FILE",
        help="detections in COCO's format, such as RUN/inference/coco_instances_results.json",
    )
    parser.add_argument(
        "--annotations", required=True, metavar="FILE", help="ground truth in COCO's format"
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images, to draw the worst")
    add_output(parser, "folder of the report", required=True)


def _run(args: argparse.Namespace) -> int:
    from ..analysis.report import Options, analyse, write_report
    from ..analysis.scored import truth_of_file
    from ..engine.ending import require_writable
    from ..evaluation.results_file import read_results

    options = Options(args.iou, args.score_threshold, args.max_dets, args.worst_images)
    require_writable(args.output)
    truth = truth_of_file(args.annotations, args.images)
    found = read_results(args.results, truth.image_ids, truth.category_ids)
    facts = [("results", args.results), ("annotations", args.annotations), *command_and_versions()]
    report = analyse(truth, found, options, facts)
    print(told(report, write_report(report, Path(args.output))))
    return 0


def command_and_versions() -> list[tuple[str, str]]:
    """The command line and the versions, as rows of the report."""
    from ..engine.run_record import versions

    return [("command", f"{PROG} {shlex.join(sys.argv[1:])}"), ("versions", "; ".join(versions()))]


def told(report: Report, page: Path) -> str:
    """What the command prints."""
    figures = ", ".join(f"{name} {value:.1f}" for name, value in report.headline().items())
    return "\n".join([figures, *report.notes, f"report: {page}"])


REPORT = Command(
    "Why a detector fails: AP by class and size, curves, thresholds, confusion, kinds of\n"
    "mistakes, calibration and the worst images, as one page and as CSV and JSON.",
    "  %(prog)s --results output/first/inference/coco_instances_results.json \\\n"
    "      --annotations val.json --images val/ --output report",
    _add_arguments,
    _run,
)
