"""``--data`` and the four paths; ``vfnet-yolof validate-data``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.options import ConfigError
from .arguments import Command, add_data


def data_paths(
    args: argparse.Namespace, splits: Sequence[str] = ("train", "val"), needed: str = ""
) -> dict[str, str]:
    """The paths that are given, by the names of the options (``train_json``, ...).

    Args:
        args: of a parser with :func:`.arguments.add_data`.
        splits: what the command is about; a folder may have more.
        needed: the split that must be there, and that a json file given as ``--data`` stands for.

    Raises:
        ConfigError: both ``--data`` and the paths are given, or the split is not there.
        FileNotFoundError, ValueError: as of :func:`vfnet_yolof.data.layouts.find_splits`.
    """
    keys = ("train_json", "train_images", "val_json", "val_images")
    paths = {key: value for key in keys if (value := getattr(args, key, None)) is not None}
    if args.data is None:
        return paths
    if paths:
        raise ConfigError("--data names all files; leave --train-json and the like out.")
    from ..data.layouts import find_images, find_splits

    if Path(args.data).suffix == ".json":
        parts = {needed or "train": find_images(args.data)}
    else:
        found = find_splits(args.data)._asdict()
        parts = {name: part for name, part in found.items() if part and name in splits}
    if needed and needed not in parts:
        raise ConfigError(f"--data {args.data}: has no annotations for {needed}.")
    for name, part in parts.items():
        paths[f"{name}_json"], paths[f"{name}_images"] = part
    return paths


def add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decode", action="store_true", help="read every image completely, not only its header"
    )


def validate(json_file: str, images: str, decode: bool) -> int:
    """Print what is wrong with one file and its images; 0 if it can be trained on, else 1."""
    from ..data import validate_coco

    report = validate_coco(json_file, images, images="decode" if decode else "header")
    if hasattr(sys.stdout, "reconfigure"):  # for names that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    print(report.format())
    print("ok" if report.ok else "not usable: correct the errors above")
    return 0 if report.ok else 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_decode(parser)


def _run(args: argparse.Namespace) -> int:
    paths = data_paths(args)
    if not paths:
        raise ConfigError("Name the data: --data PATH, or --train-json and --train-images.")
    statuses = []
    for split in ("train", "val"):
        json_file, images = paths.get(f"{split}_json"), paths.get(f"{split}_images")
        if (json_file is None) != (images is None):
            raise ConfigError(f"--{split}-json and --{split}-images go together.")
        if json_file is not None and images is not None:
            statuses.append(validate(json_file, images, args.decode))
    return max(statuses)


VALIDATE = Command(
    "Check COCO detection files and their images. Exit status 1: not to be trained on.",
    "  %(prog)s --data datasets/birds\n"
    "  %(prog)s --train-json train.json --train-images train/ --decode",
    _add_arguments,
    _run,
)
