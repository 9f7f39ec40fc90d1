"""``vfnet-yolof analyze`` and ``compare``, and the tools of the same purpose."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments, trust_from
from .arguments import Command, add_batch_size, add_data, add_device, add_model
from .main import PROG, told
from .train import training_options


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=("H", "W"),
        help="of the image in pixels (default: 800 1344)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, too")
    add_trust_arguments(parser)


def _analyze(args: argparse.Namespace, configs: Sequence[str], changes: Sequence[str]) -> int:
    from ..analysis.cost_report import report

    size = (args.size[0], args.size[1])
    try:
        print(report(configs, size, changes, trust_from(args), args.json))
    except TypeError as error:  # no detector whose parts can be told apart
        raise ValueError(str(error)) from error
    return 0


def analyze_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/analyze_model.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="files, or names of packaged configs")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="changes to every config"
    )
    _add_size(parser)
    args = parser.parse_args(arguments)
    return told(lambda: _analyze(args, args.configs, args.set), refused=1)


def _add_analyze(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "MODEL", "more of them")
    _add_size(parser)


def _run_analyze(args: argparse.Namespace) -> int:
    return _analyze(args, _configs(args), args.changes)


def _configs(args: argparse.Namespace) -> list[str]:
    """All MODELs as they are named, runs by their config."""
    from ..engine.named_model import named_model

    names = (args.model, *args.operands)
    return [x.config if x.run else name for name in names for x in [named_model(name)]]


def _add_table(training: argparse._ActionsContainer, averages: argparse._ActionsContainer) -> None:
    training.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    training.add_argument("--output", metavar="DIR", help="folder of all runs; needed")
    training.add_argument(
        "--metrics", nargs="+", default=["bbox/AP", "bbox/AP50", "bbox/AP75"], help="columns"
    )
    averages.add_argument("--metric", default="AP", help="of the boxes; AP by default")
    averages.add_argument("--markdown", help="write the table to this file as well")


def _compare(
    args: argparse.Namespace, configs: Sequence[str], common: Sequence[str], command: str
) -> int:
    from ..analysis.compare import run_all, table

    if not args.output:
        raise ConfigError("--output is missing, the folder of all runs.")
    if status := run_all(configs, args.seeds, args.output, common):
        return status
    return _tell(args, table(configs, args.seeds, args.output, args.metrics), command)


def _compare_averages(args: argparse.Namespace, runs: Sequence[str], command: str) -> int:
    from ..analysis.compare import average_table, scores_of

    scores = [scores_of(Path(run), args.metric, trust_from(args)) for run in runs]
    return _tell(args, average_table(runs, scores), command)


def _tell(args: argparse.Namespace, text: str, command: str) -> int:
    from ..analysis.compare import write_text

    print(text)
    if args.markdown:
        write_text(args.markdown, f"{text}\n\nMade by\n\n    {command}\n")
    return 0


def compare_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/compare_runs.py``; returns the exit status of the first run that fails, else 0."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--configs", nargs="+", help="files or packaged names, to be trained")
    what.add_argument(
        "--average",
        nargs="+",
        metavar="RUN",
        help="output folders of runs with train.swa.keep_parts, whose average and parts to test",
    )
    _add_table(parser.add_argument_group("with --configs"), parser)
    add_trust_arguments(parser)
    args = parser.parse_args(given[:split])
    common = given[split + 1 :]
    command = f"python tools/compare_runs.py {shlex.join(given)}"
    if args.average:
        if common:
            parser.error("--average trains nothing: leave out what follows --")
        return told(lambda: _compare_averages(args, args.average, command))
    if not args.output:
        parser.error("--configs needs --output, the folder of all runs")
    if args.trust_config or args.allow:
        parser.error("with --configs, --trust-config and --allow belong behind --")
    return told(lambda: _compare(args, args.configs, common, command))


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "MODEL", "more of them")
    parser.add_argument(
        "--average",
        action="store_true",
        help="train nothing: MODELs are runs with train.swa.keep_parts, whose average and parts "
        "are evaluated",
    )
    _add_table(parser, parser)
    add_data(parser)
    add_batch_size(parser)
    add_device(parser)
    add_trust_arguments(parser)


def _run_compare(args: argparse.Namespace) -> int:
    configs = _configs(args)
    command = f"{PROG} {shlex.join(sys.argv[1:])}"
    common = training_options(args)
    if not args.average:
        return _compare(args, configs, common, command)
    if args.changes or args.output or args.data or args.device:
        raise ConfigError("--average evaluates runs as they are: leave the other options out.")
    return _compare_averages(args, [args.model, *args.operands], command)


ANALYZE = Command(
    "Parameters and multiply-adds of detectors, by part.\n\n"
    "G are 10^9 multiply-adds of convolutions (deformable ones and their offsets' among them) and\n"
    "matrix products for one image. The affine part of frozen batch norms is not counted.",
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py gfl/gfl_r50_fpn_1x.py --json cost.json\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py model.num_classes=3 --size 608 608",
    _add_analyze,
    _run_analyze,
)
COMPARE = Command(
    "Train several configs with several seeds on the same data and tabulate the results.\n"
    "A finished run is not repeated, an interrupted one goes on where it stopped.",
    "  %(prog)s vfnet/vfnet_small.py baselines/fcos_small.py --seeds 0 1 2 \\\n"
    "      --data datasets/birds --output output/birds --markdown birds.md\n"
    "  %(prog)s output/vfnet_small_swa_shapes --average",
    _add_compare,
    _run_compare,
)
