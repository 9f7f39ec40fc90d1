"""``vfnet-yolof train`` and ``evaluate``, in the terms of ``tools/train_net.py``, and that tool."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments
from .arguments import (
    DATA_OPTIONS,
    Command,
    add_batch_size,
    add_data,
    add_device,
    add_model,
    add_other_test_settings,
    add_output,
    add_processes,
    add_runtime,
    add_seed,
    add_weights,
)
from .main import told

_VALUES = (
    *("epochs", "batch", "num_gpus", "num_processes", "num_machines", "machine_rank"),
    *("dist_url", "report", "runtime"),
)
_FLAGS = (
    *("resume", "overwrite", "tta", "optimize", "auto_scale", "small_batch", "trust_config"),
    *("other_test_settings", "measure_runtimes"),
)
_EPILOG = """examples:
  %(prog)s --config-file vfnet/vfnet_small_shapes.py
  %(prog)s --config-file vfnet/vfnet_r50_fpn_1x.py --num-gpus 8 train.init_checkpoint=backbone.pkl
  %(prog)s --config-file vfnet/vfnet_r50_fpn_1x.py --init-from vfnet.pth --small-batch \\
      --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
      dataloader.train.total_batch_size=4
  %(prog)s --config-file vfnet/vfnet_r50_fpn_1x.py --eval-only train.init_checkpoint=vfnet.pth
"""


def argument_parser() -> argparse.ArgumentParser:
    """Arguments of ``tools/train_net.py``."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate a detector.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="path, or name of a packaged config")
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint, or this run's")
    add("--exported", metavar="FILE", help="with --eval-only: this file instead of a checkpoint")
    add("--tta", action="store_true", help="with --eval-only: at several sizes, dataloader.tta")
    add("--optimize", action="store_true", help="with --eval-only: fold batch norms and the like")
    add_runtime(parser.add_argument_group("with --eval-only, on the CPU"))
    add("--report", metavar="DIR", help="with --eval-only: write a report on the detections there")
    add(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in output_dir, or of the newest run",
    )
    add(
        "--overwrite",
        action="store_true",
        help="delete the run that output_dir holds; else refused",
    )
    add(
        *("--init-from", "--weights"),
        default="",
        metavar="FILE",
        help="start from these weights, classes by name",
    )
    add_data(parser)
    add_other_test_settings(parser)
    add_batch_size(parser)
    add("--seed", type=int, help="same as train.seed=N")
    add(
        *("--output-dir", "--output"),
        metavar="DIR",
        help="train.output_dir, taken letter by letter",
    )
    # of `vfnet-yolof evaluate RUN`: the results go into a new folder below the run's
    add("--run", help=argparse.SUPPRESS)
    add_trust_arguments(parser)
    add_processes(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


def train_net(arguments: Sequence[str] | None = None) -> int:
    """``tools/train_net.py``; returns the exit status."""
    args = argument_parser().parse_intermixed_args(arguments)  # flags may follow overrides

    def run() -> int:
        from .training import run_told

        return run_told(args)

    return told(run)


def training_options(args: argparse.Namespace) -> list[str]:
    """The arguments of ``tools/train_net.py`` for what the commands share: all but the model.

    Raises:
        ConfigError, ValueError: ``--device`` contradicts other options, or is not there.
    """
    options = [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(args, name, False)]
    for key in DATA_OPTIONS:
        if (value := getattr(args, key, None)) is not None:
            options += [f"--{key.replace('_', '-')}", str(value)]
    for name in _VALUES:
        if getattr(args, name, None) is not None:
            options += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    for prefix in args.allow:
        options += ["--allow", prefix]
    if getattr(args, "seed", None) is not None:
        options += ["--seed", str(args.seed)]
    changes = list(args.changes)
    if args.device == "cpu":
        if getattr(args, "num_gpus", 1) > 1:
            raise ConfigError("--device cpu and --num-gpus exclude each other.")
        options += ["--num-gpus", "0"]
    elif args.device is not None:
        from ..config.inference import default_device

        default_device(args.device)  # what was asked for is not replaced by the CPU
        changes.insert(0, f"train.device={args.device}")
    return [*options, *changes]


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add_device(parser)
    add_seed(parser)
    add_trust_arguments(parser)
    add_processes(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_weights(parser, "start from these, classes by name; a backbone's weights do as well")
    add_output(parser, "the run's folder; by default a new one, output/CONFIG/001, 002, ...")
    # Their names in tools/train_net.py.
    parser.add_argument("--init-from", dest="weights", help=argparse.SUPPRESS)
    parser.add_argument("--output-dir", dest="output", help=argparse.SUPPRESS)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint of the run in --output, or of the config's newest run",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the run in that folder")
    add_data(parser)
    add_batch_size(parser)
    _add_shared(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_weights(parser, "checkpoint; by default the run's best or last one")
    add_output(parser, "folder for the results; by default a new one, RUN/evaluation/001, 002, ...")
    parser.add_argument("--tta", action="store_true", help="at several sizes, dataloader.tta")
    parser.add_argument(
        "--optimize", action="store_true", help="the faster copy that predicts: norms folded etc."
    )
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write curves, confusion, kinds of mistakes, calibration and worst images there; "
        "`vfnet-yolof report` does so of the same results at another IoU or score",
    )
    add_runtime(parser)
    add_data(parser, ["val"])
    add_other_test_settings(parser)
    _add_shared(parser)


def _train(args: argparse.Namespace) -> int:
    from ..engine.named_model import named_model
    from .training import command_line

    model = named_model(args.model)
    command = ["--config-file", model.config]
    if model.checkpoint is None:
        command += _output(args.output, model.run)
    elif args.resume:
        raise ConfigError("--resume continues a run: name its folder, not a checkpoint.")
    else:  # another run, which starts from it
        command += _output(args.output, None)
    if weights := args.weights or model.checkpoint:
        command += ["--init-from", weights]
    return command_line([*command, *training_options(args)])


def _evaluate(args: argparse.Namespace) -> int:
    from ..engine.named_model import named_model
    from ..runtime import is_exported
    from .training import command_line

    if is_exported(args.model):
        return _evaluate_exported(args)
    model = named_model(args.model)
    command = ["--config-file", model.config, "--eval-only", *_output(args.output, None)]
    if args.output is None and model.run:
        command += ["--run", model.run]
    options = training_options(args)
    if weights := model.weights(args.weights):
        options.append(f"train.init_checkpoint={weights}")
    return command_line([*command, *options])


def _evaluate_exported(args: argparse.Namespace) -> int:
    """The file carries the configuration that it was exported with."""
    from ..runtime.detector import open_graph
    from .training import command_line

    if args.weights or args.tta or args.optimize or args.device not in (None, "cpu"):
        raise ConfigError(
            f"{args.model} is an exported detector, which has its weights inside and runs on the "
            "CPU as it is: leave out --weights, --tta, --optimize and --device."
        )
    if args.runtime != "native":
        raise ConfigError(f"{args.model} is an exported detector: its kind says what runs it.")
    if args.output is None:
        raise ConfigError(f"{args.model} belongs to no run: name a folder with --output.")
    args.device = "cpu"
    text = open_graph(args.model, trusted=args.trust_config)[1].config
    if not text:
        raise ConfigError(f"{args.model} carries no configuration that says how to evaluate it.")
    with tempfile.TemporaryDirectory(prefix="vfnet_yolof_evaluate.") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(text, encoding="utf-8")
        command = ["--config-file", str(config), "--eval-only", "--exported", args.model]
        return command_line([*command, "--output-dir", args.output, *training_options(args)])


def _output(given: str | None, run: str | None) -> list[str]:
    """A run stays in its folder, wherever that is now."""
    folder = run if given is None else given
    return [] if folder is None else ["--output-dir", folder]


TRAIN = Command(
    "Train a detector. A run's folder as MODEL stands for its config; --resume continues it.",
    "  %(prog)s vfnet/vfnet_small_shapes.py --output output/first train.max_iter=20\n"
    "  %(prog)s output/first --resume train.max_iter=40\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth --data datasets/birds \\\n"
    "      --small-batch dataloader.train.total_batch_size=4",
    _add_train,
    _train,
)
EVALUATE = Command(
    "Evaluate a detector with COCO's measures.",
    "  %(prog)s output/first --report output/first/report\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth --data datasets/coco",
    _add_evaluate,
    _evaluate,
)
