"""``vfnet-yolof export``: a trained detector as a file for other programs."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments, trust_from
from .arguments import (
    Command,
    add_data_files,
    add_model,
    add_other_test_settings,
    add_output,
    add_weights,
)


def size_of(text: str) -> tuple[int, int]:
    """(H, W) of an argument such as 480x640."""
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
    add("--static", type=size_of, metavar="HxW", help="px; a file for this size of input only")
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
    _add_precision(parser)
    add_other_test_settings(parser)
    add_trust_arguments(parser)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("numbers of fewer bits")
    add = group.add_argument
    add(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="fp16: for GPUs; int8: for processors with VNNI or the like",
    )
    add(
        "--calibration",
        metavar="FOLDER|JSON",
        help="int8: images of the kind that is detected in, of which up to 300 are used",
    )
    add(
        "--calibration-method",
        choices=("mean", "minmax", "percentile", "entropy"),
        help="int8 in ONNX: how the ranges of activations are found (mean)",
    )
    add(
        "--max-drop",
        type=float,
        metavar="AP",
        help="int8: look for the largest part of the detector that loses at most this, such as 0.5",
    )
    add("--data", metavar="PATH", help="int8: measure AP on the validation images of this data")
    add_data_files(group, ["val"])


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
    options = ExportOptions(
        args.format,
        args.static,
        args.nms == "inside",
        args.deform,
        _reduction(args, named.config, predictor.class_names),
    )
    weights = named.weights(args.weights) or predictor.cfg.weights
    license = license_of(weights) if weights and Path(weights).is_file() else None
    trained = named.run or named.checkpoint  # a run's configuration has the same name in each
    target = Path(args.output) / _name(str(weights) if trained else predictor.cfg.name)
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
    exact = args.precision == "fp32"
    print(f"The {'' if exact else 'fp32 '}file gives what the detector gives:")
    for check in checks:
        print(f"  {check}")
    if license is None:
        print("The licence of the weights is not known.")
    print(f"exported: {target}{FORMATS[args.format]}")
    return 0


def _reduction(args: argparse.Namespace, config: str, class_names: list[str]) -> Any:
    """The :class:`.Reduction` that is asked for, or None."""
    from ..export.calibration import Calibration
    from ..export.precision import Reduction
    from ..runtime.processor import warn_of_int8

    measures = args.data or args.val_json
    if args.precision != "int8" and (measures or args.val_images):
        raise ConfigError("--data, --val-json and --val-images are for --precision int8.")
    if args.calibration_method and (args.precision, args.format) != ("int8", "onnx"):
        raise ConfigError("--calibration-method is for --precision int8 with --format onnx.")
    if args.precision == "fp32":
        if args.calibration or args.max_drop is not None:
            raise ConfigError("--calibration and --max-drop are for --precision int8.")
        return None
    calibration = Calibration.of(args.calibration) if args.calibration else None
    if calibration is not None:
        print(f"calibrates on {calibration}")
    if args.precision == "int8":
        warn_of_int8()
    if calibration and calibration.annotated and not measures:
        args.val_json, args.val_images = args.calibration, str(calibration.root)
        measures = True
    return Reduction(
        args.precision,
        calibration,
        args.calibration_method or "mean",
        _evaluation(args, config, class_names) if measures else None,
        args.max_drop,
    )


def _evaluation(
    args: argparse.Namespace, config: str, class_names: list[str]
) -> Callable[[Path], float]:
    """What gives an exported file's AP, per cent."""
    from ..config.read import RunFlags, read
    from ..engine.evaluation import Evaluation
    from ..inference.exported import ExportedModel
    from ..utils.class_names import Classes

    flags = RunFlags(
        data=args.data,
        val_json=args.val_json,
        val_images=args.val_images,
        cpu=True,
        eval_only=True,
    )
    cfg = read(config, args.changes, flags, trust_from(args)).cfg
    evaluation = Evaluation(cfg, Classes(list(class_names), args.model))

    def ap(path: Path) -> float:
        with tempfile.TemporaryDirectory(prefix="vfnet_yolof_evaluate.") as folder:
            cfg.dataloader.evaluator.output_dir = folder
            results = evaluation(ExportedModel(path))
        value = float(results.get("bbox", {}).get("AP", math.nan))
        if math.isnan(value):
            raise ConfigError("AP cannot be measured: the validation data have no annotations.")
        return value

    return ap


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
