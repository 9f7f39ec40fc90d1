"""Convert another project's detector for a configuration of this one.

    python tools/convert_checkpoint.py --config-file vfnet/vfnet_r50_fpn_1x.py \\
        vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth vfnet_r50.pth

Reads MMDetection's VFNet and GFL (2.x and 3.x) and the YOLOF of its authors. The configuration
decides what is expected; a checkpoint of another model is refused, with what it looks like. The
output loads with Detectron2's checkpointer.
"""

import argparse
import sys

from detectron2.utils.file_io import PathManager
from vfnet_yolof.checkpoint import CheckpointError, convert_checkpoint
from vfnet_yolof.checkpoint.convert import hash_in_name
from vfnet_yolof.checkpoint.rules import shorten_list
from vfnet_yolof.inference_config import read_inference_config


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="file or name of a packaged config")
    parser.add_argument("input", help="checkpoint to convert: a file or an address")
    parser.add_argument("output", help="file to write")
    parser.add_argument(
        "overrides", nargs="*", help="changes of the configuration, e.g. model.num_classes=3"
    )
    args = parser.parse_args(argv)
    try:
        model = read_inference_config(args.config_file, args.overrides).build_model()
        path = PathManager.get_local_path(args.input)
        result, report = convert_checkpoint(path, args.output, model)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.summary())
    sha256 = result["source"]["sha256"]
    expected = hash_in_name(args.input)
    print(f"SHA-256 of the source: {sha256}")
    if expected and not sha256.startswith(expected):
        print(f"warning: its name says {expected}...; the file is not the published one")
    names = result.get("class_names")
    print(f"class names: {shorten_list(names)}" if names else "class names: none in the source")
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
