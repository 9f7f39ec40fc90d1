#!/usr/bin/env python
"""Check a COCO detection file and its images: ``validate_dataset.py train.json images/``.

Exit status: 0 when it can be trained on (there may be warnings), 1 when not.
"""

from __future__ import annotations

import argparse

from vfnet_yolof.cli.data import add_decode, validate
from vfnet_yolof.cli.main import console


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", help="annotation file in COCO's detection format")
    parser.add_argument("images", help="folder that the file names are relative to")
    add_decode(parser)
    args = parser.parse_args(argv)
    return validate(args.json, args.images, args.decode)


if __name__ == "__main__":
    console(main)
