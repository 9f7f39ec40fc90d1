"""``--data`` and the four paths; ``vfnet-yolof validate-data`` and ``convert-data``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.options import ConfigError
from .arguments import DATA_HELP, Command, add_data, add_output, add_split


def data_paths(args: argparse.Namespace) -> dict[str, str]:
    """The paths that are given, by the names of the options (``train_json``, ...).

    Raises:
        ConfigError: both ``--data`` and the paths are given, or ``--split`` without ``--data``.
        FileNotFoundError, ValueError: as of :func:`vfnet_yolof.data.layouts.open_data`.
    """
    keys = ("train_json", "train_images", "val_json", "val_images")
    paths = {key: value for key in keys if (value := getattr(args, key)) is not None}
    if args.data is None:
        if args.split is not None:
            raise ConfigError("--split parts the data that --data names: give both.")
        return paths
    if paths:
        raise ConfigError("--data names all files; leave --train-json and the like out.")
    from ..data.layouts import open_data

    with _log_shown():
        opened = open_data(args.data, args.split)
    for name, part in (("train", opened.train), ("val", opened.val)):
        if part is not None:
            paths[f"{name}_json"], paths[f"{name}_images"] = part
    return paths


@contextmanager
def _log_shown() -> Iterator[None]:
    """What the data are and what was left out is told before a run has set up its log, too."""
    logger = logging.getLogger("detectron2")
    if logger.handlers:
        yield
        return
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


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
    "Check a data set and its images. Exit status 1: not to be trained on.",
    "  %(prog)s --data datasets/birds\n"
    "  %(prog)s --data exported/data.yaml --split 0.2\n"
    "  %(prog)s --train-json train.json --train-images train/ --decode",
    _add_arguments,
    _run,
)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help=DATA_HELP)
    add_output(parser, "folder for train.json, val.json and their images", required=True)
    add_split(parser)
    parser.add_argument("--copy-images", action="store_true", help="instead of links to them")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")


def _convert(args: argparse.Namespace) -> int:
    from ..data.convert import convert_data

    with _log_shown():
        counts = convert_data(
            args.path,
            args.output,
            split=args.split,
            copy_images=args.copy_images,
            overwrite=args.overwrite,
        )
    how = "copied" if args.copy_images else "linked"
    for split, count in counts.items():
        print(f"{Path(args.output) / split}.json: {count} images, {how} in {split}/")
    return 0


CONVERT = Command(
    "Write a data set of any known format as COCO JSON, which --data reads again.",
    "  %(prog)s exported/data.yaml --output datasets/birds\n"
    "  %(prog)s labelme_folder --output datasets/birds --split 0.2 --copy-images",
    _add_convert,
    _convert,
)
