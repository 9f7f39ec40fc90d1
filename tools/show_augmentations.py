#!/usr/bin/env python
"""Draw training images as a config augments them: ``show_augmentations.py -o DIR CONFIG``.

With ``dataloader.train.dataset.names=shapes_train`` any config draws the built-in shapes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vfnet_yolof.analysis.training_images import save_training_pictures
from vfnet_yolof.config.read import read
from vfnet_yolof.config.yaml_files import add_trust_arguments, trust_from
from vfnet_yolof.data.loader import DataLoadingError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="LazyConfig file, or the name of a packaged one")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="made if needed")
    parser.add_argument("-n", "--count", type=int, default=16, help="how many (16)")
    parser.add_argument("--seed", type=int, default=0, help="of the training they belong to (0)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    add_trust_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    try:
        cfg = read(args.config, args.overrides, trust=trust_from(args)).cfg
        paths = save_training_pictures(cfg, args.output, count=args.count, seed=args.seed)
    except (OSError, ValueError, DataLoadingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} images in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
