"""``vfnet-yolof compare``: two detectors on the same images, or configs with several seeds."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments, trust_from
from .arguments import Command, add_batch_size, add_data, add_device, add_model
from .main import PROG, told
from .reports import named_configs
from .train import EVALUATE, training_options

if TYPE_CHECKING:
    from ..analysis.scored import Truth


def _add_table(training: argparse._ActionsContainer, averages: argparse._ActionsContainer) -> None:
    training.add_argument("--seeds", nargs="+", type=int, help="of the trainings (0 1 2)")
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
    seeds = args.seeds or [0, 1, 2]
    if status := run_all(configs, seeds, args.output, common):
        return status
    return _tell(args, table(configs, seeds, args.output, args.metrics), command)


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
    add_model(parser, "MODEL", "more of them; or two results files")
    parser.add_argument(
        "--average",
        action="store_true",
        help="train nothing: MODELs are runs with train.swa.keep_parts, whose average and parts "
        "are evaluated",
    )
    _add_table(parser, parser)
    pair = parser.add_argument_group("two detectors, or two results files in COCO's format")
    pair.add_argument("--annotations", metavar="FILE", help="ground truth of two results files")
    pair.add_argument("--images", metavar="DIR", help="their images, to draw some")
    pair.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="of the images (1000)"
    )
    add_data(parser)
    add_batch_size(parser)
    add_device(parser)
    add_trust_arguments(parser)


def _run_compare(args: argparse.Namespace) -> int:
    models = [args.model, *args.operands]
    if not args.average and any(map(_is_results_file, models)):
        return _compare_results(args, models)
    if not args.average and not args.seeds and _are_trained_pair(models):
        return _compare_models(args, models)
    configs = named_configs(args)
    command = f"{PROG} {shlex.join(sys.argv[1:])}"
    common = training_options(args)
    if not args.average:
        return _compare(args, configs, common, command)
    if args.changes or args.output or args.data or args.device:
        raise ConfigError("--average evaluates runs as they are: leave the other options out.")
    return _compare_averages(args, models, command)


def _is_results_file(name: str) -> bool:
    return name.endswith(".json")


def _are_trained_pair(models: Sequence[str]) -> bool:
    """Two detectors with weights; configs are for training, with --seeds runs are, too."""
    from ..engine.named_model import named_model
    from ..runtime import is_exported

    found = [named_model(name) for name in models]
    trained = [bool(x.run or x.checkpoint or is_exported(x.config)) for x in found]
    if any(trained) and not all(trained):
        raise ConfigError(
            "Trained detectors are compared with each other, and configs are: name two models "
            "with weights, or configs, or give --seeds to train the configs of runs."
        )
    if all(trained) and len(models) != 2:
        raise ConfigError(
            f"{len(models)} trained models: name two to compare their detections, or give --seeds "
            "to train their configs anew."
        )
    return all(trained)


def _compare_results(args: argparse.Namespace, files: Sequence[str]) -> int:
    from ..analysis.scored import truth_of_file

    if len(files) != 2 or not all(map(_is_results_file, files)):
        raise ConfigError(f"Name two results files (.json) to compare, not {', '.join(files)}.")
    if args.annotations is None:
        raise ConfigError("--annotations is missing, the ground truth of both results files.")
    return _compare_pair(args, truth_of_file(args.annotations, args.images), files, files)


def _compare_models(args: argparse.Namespace, models: Sequence[str]) -> int:
    from ..analysis.report_run import RESULTS
    from ..analysis.scored import truth_of_dataset

    if not args.output:
        raise ConfigError("--output is missing, the folder for both evaluations.")
    _require_one_data_set([_test_data(args, model) for model in models])
    folders = [Path(args.output) / which for which in ("a", "b")]
    for model, folder in zip(models, folders, strict=True):
        command = [model, *training_options(args), "--output", str(folder)]
        if status := EVALUATE.run(EVALUATE.parsed(f"{PROG} evaluate", command)):
            return status
    results = [folder / "inference" / RESULTS for folder in folders]
    for file in results:
        if not file.is_file():
            raise ConfigError(f"The evaluation has not written {file}, which is compared.")
    metrics = [json.loads((file.parent / "metrics.json").read_text()) for file in results]
    names = [content["dataset"] for content in metrics]
    _require_one_data_set(names)
    return _compare_pair(args, truth_of_dataset(names[0]), models, list(map(str, results)))


def _test_data(args: argparse.Namespace, model: str) -> str | None:
    """Name of the data that a model is going to be evaluated on; None of an exported file."""
    from ..engine.classes import dataset_names
    from ..engine.named_model import named_model
    from ..runtime import is_exported
    from .train import argument_parser
    from .training import read_arguments

    if is_exported(model):
        return None
    command = ["--config-file", named_model(model).config, "--eval-only", *training_options(args)]
    config = read_arguments(argument_parser().parse_intermixed_args(command))
    return ", ".join(dataset_names(config.cfg, "test"))


def _require_one_data_set(names: Sequence[str | None]) -> None:
    known = list(dict.fromkeys(x for x in names if x is not None))
    if len(known) > 1:
        raise ConfigError(
            f"The models are evaluated on different data, {' and '.join(known)}: name what both "
            "are to be evaluated on with --data."
        )


def _compare_pair(
    args: argparse.Namespace, truth: Truth, names: Sequence[str], files: Sequence[str]
) -> int:
    from ..analysis.paired import class_table, compared, write_comparison
    from ..analysis.report import analyse
    from ..evaluation.results_file import read_results

    found = [read_results(file, truth.image_ids, truth.category_ids) for file in files]
    reports = [analyse(truth, one) for one in found]
    result = compared(reports, (names[0], names[1]), args.resamples)
    columns, rows = class_table(result, reports)
    print(f"A: {names[0]}\nB: {names[1]}")
    for which, report in zip("AB", reports, strict=True):
        for note in report.notes:
            print(f"{which}: {note}")
    print(tabulate(rows, columns, "pipe", disable_numparse=True))
    if args.output:
        print(f"comparison: {write_comparison(result, reports, Path(args.output))}")
    print(result.verdict)
    return 0


COMPARE = Command(
    "Two trained detectors, or two results files: is one better on the same images, or are they\n"
    "not told apart? With configs: train several with several seeds on the same data and tabulate\n"
    "the results. A finished run is not repeated, an interrupted one goes on where it stopped.",
    "  %(prog)s output/first output/second --data datasets/birds --output output/compared\n"
    "  %(prog)s first.json second.json --annotations val.json --images val/ --output compared\n"
    "  %(prog)s vfnet/vfnet_small.py baselines/fcos_small.py --seeds 0 1 2 \\\n"
    "      --data datasets/birds --output output/birds --markdown birds.md\n"
    "  %(prog)s output/vfnet_small_swa_shapes --average",
    _add_compare,
    _run_compare,
)
