#!/usr/bin/env python
"""Check a COCO detection file and its images: ``validate_dataset.py train.json images/``.

Exit status: 0 when it can be trained on (there may be warnings), 1 when not.
"""

from __future__ import annotations

import argparse
import sys

from vfnet_yolof.data import validate_coco


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", help="annotation file in COCO's detection format")
    parser.add_argument("images", help="folder that the file names are relative to")
    parser.add_argument(
        "--decode", action="store_true", help="read every image completely, not only its header"
    )
    args = parser.parse_args(argv)
    report = validate_coco(args.json, args.images, images="decode" if args.decode else "header")
    if hasattr(sys.stdout, "reconfigure"):  # for names that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    print(report.format())
    print("ok" if report.ok else "not usable: correct the errors above")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
