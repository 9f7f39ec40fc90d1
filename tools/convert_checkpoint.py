"""Convert another project's detector, or an ImageNet backbone, for a configuration of this one.

    python tools/convert_checkpoint.py --config-file vfnet/vfnet_r50_fpn_1x.py \\
        vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth vfnet_r50.pth

Reads the checkpoints that docs/weights.md lists. The configuration decides what is expected; a
checkpoint of another model is refused, with what it looks like. The output loads with Detectron2's
checkpointer.

Backbones are recognised by themselves: torchvision's and open-mmlab's ResNet, ResNeXt and Res2Net,
the .pkl files of MSRA, Facebook and Detectron2, and the CSPDarkNet of YOLOF's authors. The output
fills the backbone alone; training from it (train.init_checkpoint=FILE) begins with a fresh neck and
head. The same files may be named in train.init_checkpoint without converting them.
"""

import argparse
import sys

from vfnet_yolof.checkpoint import CheckpointError, convert_checkpoint, load_checkpoint
from vfnet_yolof.checkpoint.backbones import convert_backbone, describe_pixels, is_backbone
from vfnet_yolof.checkpoint.convert import hash_in_name
from vfnet_yolof.checkpoint.loading import local_file
from vfnet_yolof.checkpoint.rules import shorten_list
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.yaml_files import add_trust_arguments, trust_from


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
    add_trust_arguments(parser)
    args = parser.parse_args(argv)
    try:
        config = read_inference_config(args.config_file, args.overrides, trust_from(args))
        model = config.build_model()
        path = local_file(args.input)
        backbone = is_backbone(load_checkpoint(path))
        convert = convert_backbone if backbone else convert_checkpoint
        result, report = convert(path, args.output, model)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.summary())
    sha256 = result["source"]["sha256"]
    expected = hash_in_name(args.input)
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
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
