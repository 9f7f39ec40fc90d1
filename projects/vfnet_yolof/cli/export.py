"""``vfnet-yolof export``: a trained detector as a file for other programs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments, trust_from
from .arguments import Command, add_model, add_other_test_settings, add_output, add_weights


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH such as 480x640")
    return int(match[1]), int(match[2])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_weights(parser, "checkpoint; by default the run's best or last, or the config's")
    add_output(parser, "folder for the file", required=True)
    add = parser.add_argument
    add("--format", choices=("onnx", "openvino", "torch-export"), default="onnx")
    add("--static", type=_size, metavar="HxW", help="px; a file for this size of input only")
    add(
        "--nms",
        choices=("inside", "outside"),
        default="inside",
        help="outside: the file gives candidates, and duplicates are yours to remove",
    )
    add(
        "--deform",
        choices=("gridsample", "deformconv"),
        default="gridsample",
        help="deformconv: ONNX's own operator (opset 22), which fewer programs run",
    )
    add_other_test_settings(parser)
    add_trust_arguments(parser)


def _run(args: argparse.Namespace) -> int:
    from ..config.read import read
    from ..config.saved import config_text
    from ..engine.named_model import named_model
    from ..export.write import FORMATS, ExportOptions, export_detector
    from ..inference.predictor import Predictor
    from ..model_zoo import license_of
    from ..runtime import is_exported

    if is_exported(args.model):
        raise ConfigError(f"{args.model} is exported already: name the checkpoint or the run.")
    options = ExportOptions(args.format, args.static, args.nms == "inside", args.deform)
    named = named_model(args.model)
    predictor = Predictor(
        named.config,
        named.weights(args.weights),
        device="cpu",
        overrides=args.changes,
        optimized=False,
        allow=args.allow,
        trust_config=args.trust_config,
        other_test_settings=args.other_test_settings,
    )
    weights = named.weights(args.weights) or predictor.cfg.weights
    license = license_of(weights) if weights and Path(weights).is_file() else None
    target = Path(args.output) / _name(predictor.cfg.name)
    checks = export_detector(
        predictor.model,
        predictor.cfg,
        target,
        options,
        class_names=predictor.class_names,
        category_ids=predictor.category_ids,
        license=license,
        config_text=config_text(read(named.config, args.changes, trust=trust_from(args)).cfg),
    )
    print("The file gives what the detector gives:")
    for check in checks:
        print(f"  {check}")
    if license is None:
        print("The licence of the weights is not known: the file names none.")
    print(f"exported: {target}{FORMATS[args.format]}")
    return 0


def _name(config: str) -> str:
    """Of the file: that of the checkpoint or configuration."""
    return Path(config).stem or "model"


EXPORT = Command(
    "Write a trained detector as an ONNX file, OpenVINO IR or torch.export's .pt2, and check the\n"
    "file against the detector. predict takes it as MODEL.",
    "  %(prog)s output/first --output exported\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth --output exported \\\n"
    "      --format openvino",
    _add_arguments,
    _run,
)
