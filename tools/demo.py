"""Detect objects in images, videos or from a camera; draw them, and list them as JSON.

    python tools/demo.py --config-file vfnet/vfnet_r50_fpn_1x.py --weights vfnet_r50.pth \\
        --input images/ "more/*.png" street.mp4 --output results --json results/found.json

Exit code 1: some inputs could not be read (they are listed, the others are done).
"""

import argparse

from vfnet_yolof.cli.main import console, told
from vfnet_yolof.cli.predict import add_options, add_webcam, predict


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="file or name of a packaged config")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        default=[],
        dest="operands",
        metavar="INPUT",
        help="images, videos, folders or patterns",
    )
    add_webcam(source)
    parser.add_argument(
        "--opts",
        nargs="+",
        default=[],
        dest="changes",
        metavar="key=value",
        help="changes of the configuration",
    )
    add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return told(lambda: predict(args, args.config_file, args.weights))


if __name__ == "__main__":
    console(main)
