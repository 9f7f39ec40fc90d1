"""``vfnet-yolof predict``: detections drawn, and listed as JSON."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments
from ..utils import threads
from .arguments import (
    Command,
    add_device,
    add_model,
    add_other_test_settings,
    add_output,
    add_runtime,
    add_weights,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is called the same by ``tools/demo.py``."""
    add_weights(parser, "checkpoint; by default the run's best or last, or the config's")
    add_output(parser, "folder for the drawn results", required=True)
    parser.add_argument(
        "--json", metavar="FILE", help="file for the detections in COCO's result format"
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="file in COCO's format with the images: --json takes its ids of images and categories",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="leave out what scores lower (0.3); the model's own threshold does not hold it up",
    )
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        help="scores by class name, as `vfnet-yolof report` writes them; others: --score-threshold",
    )
    inner = parser.add_mutually_exclusive_group()
    inner.add_argument(
        "--draw-star", action="store_true", help="VFNet: initial box, star points, refined box"
    )
    inner.add_argument(
        "--draw-distributions",
        action="store_true",
        help="GFL: the predicted distribution of each side of a box",
    )
    add_device(parser)
    add_runtime(parser)
    add_other_test_settings(parser)
    parser.add_argument("--batch-size", type=int, default=4, help="images or frames at once")
    parser.add_argument("--max-frames", type=int, help="stop a video or camera after so many")
    add_trust_arguments(parser)


def add_webcam(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--webcam", nargs="?", type=int, const=0, help="camera number (0)")


def predict(args: argparse.Namespace, config: str, weights: str | None) -> int:
    """Detect in ``args.operands`` or with the camera; 1 if some inputs could not be read, else 0.

    Raises:
        InputError, CheckpointError, OSError, ValueError: something is wrong with the arguments.
    """
    from ..config.inference import default_device
    from ..inference.demo import collect_inputs, run_on_camera, run_on_files, write_json
    from ..inference.predictor import Predictor

    if args.annotations is not None and args.json is None:
        raise ConfigError("--annotations gives the ids in --json FILE: name that, too.")
    if args.annotations is not None and args.webcam is not None:
        raise ConfigError("--annotations knows images by their files; a camera has none.")
    if args.runtime != "native" and (args.draw_star or args.draw_distributions):
        raise ConfigError(
            "--draw-star and --draw-distributions look into the detector: leave out --runtime."
        )
    if args.json is not None and Path(args.json).is_dir():
        raise ConfigError(f"--json {args.json} is a folder; name a file.")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    sources = collect_inputs(args.operands)
    if default_device(args.device).type == "cpu" and (said := threads.use_free_cores()):
        print(said, file=sys.stderr)
    predictor = Predictor(
        config,
        weights,
        device=args.device,
        score_thresh=args.score_threshold,
        thresholds=args.thresholds,
        batch_size=args.batch_size,
        overrides=args.changes,
        allow=args.allow,
        trust_config=args.trust_config,
        other_test_settings=args.other_test_settings,
        runtime=args.runtime,
        measure_runtimes=args.measure_runtimes,
    )
    if args.runtime != "native":
        print(f"runtime: {predictor.choice}", file=sys.stderr)
    options = {
        "star": args.draw_star,
        "distributions": args.draw_distributions,
        "max_frames": args.max_frames,
    }
    if args.webcam is not None:
        result = run_on_camera(predictor, args.webcam, args.output, **options)
    else:
        options["annotations"] = args.annotations
        result = run_on_files(predictor, sources, args.output, **options)
    print(f"{len(result.records)} detections in {result.num_images} images or frames")
    if result.written:
        print(f"drawn results: {args.output} ({len(result.written)} files)")
    if args.json:
        write_json(result, args.json)
        print(f"detections: {args.json}")
        if result.classes_are_numbered:
            print("  category_id counts classes from 0: the checkpoint has no ids of its data set")
    for name, reason in result.failures:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if result.failures else 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "INPUT", "images, videos, folders or patterns")
    add_webcam(parser)
    add_options(parser)


def _run(args: argparse.Namespace) -> int:
    from ..engine.named_model import named_model
    from ..model_zoo import find_trained

    named = [args.weights, *(c for c in args.changes if c.startswith("train.init_checkpoint="))]
    of_zoo = not any(named) and _is_row(args.model)
    model = None if of_zoo else named_model(args.model)
    if bool(args.operands) == (args.webcam is not None):
        raise ConfigError("Name images, videos or folders after MODEL, or --webcam: one of both.")
    if model is None:
        published = find_trained(args.model)
        print(f"published weights: {published.weights}")
        args.changes = [*published.overrides, *args.changes]
        return predict(args, published.config, str(published.weights))
    return predict(args, model.config, model.weights(args.weights))


def _is_row(name: str) -> bool:
    from ..model_zoo import find_row

    try:
        return bool(find_row(name)) and not Path(name).exists()
    except KeyError:
        return False


PREDICT = Command(
    "Detect objects in images, videos or from a camera; draw them, and list them as JSON.\n"
    "A row of the model zoo is used with its published weights, which are fetched if not here.\n"
    "Exit status 1: some inputs could not be read (they are listed, the others are done).",
    "  %(prog)s output/first/model_best.pth street.jpg videos/ --output results --json found.json\n"
    "  %(prog)s vfnet_r50_fpn_1x 'more/*.png' --output results\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth 'more/*.png' --output results",
    _add_arguments,
    _run,
)
