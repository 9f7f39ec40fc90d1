"""Detect objects in pictures, videos or from a camera; draw them, and list them as JSON.

    python tools/demo.py --config-file vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth \\
        --input pictures/ "more/*.png" street.mp4 --output results --json results/found.json

Exit code 1: some inputs could not be read (they are listed, the others are done).
"""

import argparse
import logging
import sys

from vfnet_yolof import Predictor
from vfnet_yolof.checkpoint import CheckpointError
from vfnet_yolof.config.yaml_files import add_trust_arguments
from vfnet_yolof.inference.demo import (
    InputError,
    collect_inputs,
    run_on_camera,
    run_on_files,
    write_json,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="file or name of a packaged config")
    parser.add_argument("--weights", help="checkpoint; by default the one that the config names")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="pictures, videos, folders or patterns")
    source.add_argument("--webcam", nargs="?", type=int, const=0, help="camera number (0)")
    parser.add_argument("--output", required=True, help="folder for the drawn results")
    parser.add_argument("--json", help="file for the detections in COCO's result format")
    parser.add_argument("--score-threshold", type=float, default=0.3)
    inner = parser.add_mutually_exclusive_group()
    inner.add_argument(
        "--draw-star", action="store_true", help="VFNet: initial box, star points, refined box"
    )
    inner.add_argument(
        "--draw-distributions",
        action="store_true",
        help="GFL: at each side of a box how probable it is where",
    )
    parser.add_argument("--device", help="cuda, cuda:1, cpu, ...; by default a GPU if there is one")
    parser.add_argument("--batch-size", type=int, default=4, help="pictures or frames at once")
    parser.add_argument("--max-frames", type=int, help="stop a video or camera after so many")
    parser.add_argument(
        "--opts", nargs="+", default=[], help="changes of the configuration, key=value"
    )
    add_trust_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        sources = collect_inputs(args.input or [])
        predictor = Predictor(
            args.config_file,
            args.weights,
            device=args.device,
            score_thresh=args.score_threshold,
            batch_size=args.batch_size,
            overrides=args.opts,
            allow=args.allow,
            trust_config=args.trust_config,
        )
        options = {
            "star": args.draw_star,
            "distributions": args.draw_distributions,
            "max_frames": args.max_frames,
        }
        if args.webcam is not None:
            result = run_on_camera(predictor, args.webcam, args.output, **options)
        else:
            result = run_on_files(predictor, sources, args.output, **options)
    except (InputError, CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(result.records)} detections in {result.num_images} pictures or frames")
    if result.written:
        print(f"drawn results: {args.output} ({len(result.written)} files)")
    if args.json:
        write_json(result, args.json)
        print(f"detections: {args.json}")
    for name, reason in result.failures:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
