"""``vfnet-yolof convert`` and ``average``, and the tools of the same purpose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import Trust, add_trust_arguments, trust_from
from .arguments import Command, add_model, add_output, add_weights


def convert(config: str, source: str, output: str, changes: Sequence[str], trust: Trust) -> int:
    """Convert a checkpoint, print what became of it, and return 0.

    Raises:
        CheckpointError, OSError, ValueError: it does not fit the config, or a file is not there.
    """
    from ..checkpoint import convert_checkpoint, load_checkpoint
    from ..checkpoint.backbones import convert_backbone, describe_pixels, is_backbone
    from ..checkpoint.convert import hash_in_name
    from ..checkpoint.loading import local_file
    from ..checkpoint.rules import shorten_list
    from ..config.inference import read_inference_config
    from ..config.read import read
    from ..config.saved import ENTRY, config_text

    model = read_inference_config(config, changes, trust).build_model()
    path = local_file(source)
    backbone = is_backbone(load_checkpoint(path))
    if backbone:
        result, report = convert_backbone(path, output, model)
    else:
        record = {ENTRY: config_text(read(config, changes, trust=trust).cfg)}
        result, report = convert_checkpoint(path, output, model, record)
    print(report.summary())
    sha256 = result["source"]["sha256"]
    expected = hash_in_name(source)
    print(f"SHA-256 of the source: {sha256}")
    if expected and not sha256.startswith(expected):
        print(f"warning: its name says {expected}...; the file is not the published one")
    if backbone:
        print("a backbone: neck and head start afresh with train.init_checkpoint")
        if warning := describe_pixels(report, getattr(model, "input_format", None)):
            print(f"warning: {warning}")
    else:
        names = result.get("class_names")
        print(f"class names: {shorten_list(names)}" if names else "class names: none in the source")
    print(f"written: {output}")
    return 0


def average(inputs: Sequence[str], output: str) -> int:
    """Write the mean of checkpoints, and return 0.

    Raises:
        CheckpointError, OSError: they do not fit each other, or a file is not there.
    """
    import torch

    from ..checkpoint.average import average_checkpoints
    from ..utils.files import write_atomically

    content = average_checkpoints(inputs)
    write_atomically(output, lambda file: torch.save(content, file))
    print(f"written: {output}, the mean of {len(inputs)} files")
    return 0


def _add_convert(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_weights(parser, "checkpoint to convert: a file or an address")
    add_output(parser, "file to write", required=True)
    add_trust_arguments(parser)


def _run_convert(args: argparse.Namespace) -> int:
    from ..engine.named_model import named_model

    model = named_model(args.model)
    if not args.weights:
        raise ConfigError("Name the checkpoint to convert: --weights FILE.")
    return convert(model.config, args.weights, args.output, args.changes, trust_from(args))


def _add_average(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="checkpoints, or runs' folders: best or last one"
    )
    add_output(parser, "file to write", required=True)


def _run_average(args: argparse.Namespace) -> int:
    from ..engine.named_model import named_model

    names = [named_model(name).weights() if Path(name).is_dir() else name for name in args.models]
    return average([name for name in names if name], args.output)


CONVERT = Command(
    "Convert another project's detector, or an ImageNet backbone, for a config of this one.\n\n"
    "Reads the checkpoints that docs/weights.md lists. The config decides what is expected; a\n"
    "checkpoint of another model is refused, with what it looks like. Backbones are recognised\n"
    "by themselves and fill the backbone alone.",
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py \\\n"
    "      --weights vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth --output vfnet_r50.pth",
    _add_convert,
    _run_convert,
)
AVERAGE = Command(
    "Write the mean of several checkpoints of one model.\n\n"
    "Takes those of training runs (their weights, not their moving averages) and plain state\n"
    "dicts. They are read one at a time and summed in float64.",
    "  %(prog)s run/model_0000999.pth run/model_0001999.pth --output average.pth",
    _add_average,
    _run_average,
)
