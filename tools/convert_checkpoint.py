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

from vfnet_yolof.cli.main import console, told
from vfnet_yolof.cli.weights import convert
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
    return told(
        lambda: convert(
            args.config_file, args.input, args.output, args.overrides, trust_from(args)
        ),
        refused=1,
    )


if __name__ == "__main__":
    console(main)
