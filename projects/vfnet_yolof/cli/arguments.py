"""What all commands share: the arguments that mean the same in each, and how these are told apart.

Nothing here imports PyTorch or Detectron2: the help texts are to be there at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

MODEL_HELP = "a checkpoint, a run's folder, a config's path, or a packaged config's name"
DATA_HELP = (
    "a folder or an annotation file of COCO (train.json with train/, val.json with val/, and "
    "others), YOLO (data.yaml), Pascal VOC, CreateML, LabelMe, CVAT, Label Studio or CSV"
)
DATA_OPTIONS = ("data", "split", "train_json", "train_images", "val_json", "val_images")
# Keys are dotted names. A file whose name has an equals sign is given with its folder: ./a=b.png
_CHANGE = re.compile(r"[+~]?\w[\w.@-]*=")


class Command(NamedTuple):
    """One command of ``vfnet-yolof``.

    Attributes:
        summary: a sentence. examples: lines of a shell.
        add_arguments: called with an empty parser.
        run: what the command does; returns the exit status. Errors of the user's are raised.
    """

    summary: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self, prog: str) -> argparse.ArgumentParser:
        """The parser of the command's arguments."""
        parser = argparse.ArgumentParser(
            prog=prog,
            description=self.summary,
            epilog=f"examples:\n{self.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_arguments(parser)
        return parser

    def parsed(self, prog: str, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, with ``operands`` parted into operands and ``changes``.

        Options may stand between operands and changes.
        """
        parser = self.parser(prog)
        args = parser.parse_intermixed_args(arguments)
        given = getattr(args, "operands", [])
        args.changes = [text for text in given if _CHANGE.match(text)]
        args.operands = [text for text in given if not _CHANGE.match(text)]
        if args.operands and not getattr(args, "takes_operands", False):
            parser.error(f"unexpected: {' '.join(args.operands)} (changes are key=value)")
        return args


def add_model(parser: argparse.ArgumentParser, operands: str = "", what: str = "") -> None:
    """MODEL, the command's own operands if it has any, and ``key=value``.

    Args:
        operands: their name. what: their help.
    """
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    text = f"{what}; key=value: changes to the config" if operands else "changes to the config"
    metavar = f"{operands} | key=value" if operands else "key=value"
    # With a default, argparse does not say that they are required where MODEL is missing.
    parser.add_argument("operands", nargs="*", default=[], metavar=metavar, help=text)
    parser.set_defaults(takes_operands=bool(operands))


def add_weights(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--weights", metavar="FILE", help=what)


def add_other_test_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--other-test-settings",
        action="store_true",
        help="resize and normalize images as the config says, whatever the checkpoint's says",
    )


def add_output(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    parser.add_argument("--output", metavar="PATH", required=required, help=what)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N; by default a GPU if there is one"
    )


def add_runtime(parser: argparse._ActionsContainer) -> None:
    """``--runtime`` and ``--measure-runtimes``."""
    parser.add_argument(
        "--runtime",
        choices=("native", "auto", "onnxruntime", "openvino"),
        default="native",
        help="what computes, in float32: this project's layers (native), the fastest that is "
        "installed, by a stated rule (auto), or that one; exports the detector once if needed",
    )
    parser.add_argument(
        "--measure-runtimes",
        action="store_true",
        help="with --runtime auto: measure which is the fastest on this machine, once",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, help="of all random numbers, as train.seed=N")


def add_data(parser: argparse.ArgumentParser, splits: Sequence[str] = ("train", "val")) -> None:
    """``--data`` and, for those whose files lie otherwise, the explicit paths."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="PATH", help=DATA_HELP)
    add_split(group)
    add_data_files(group, splits)


def add_split(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--split",
        type=float,
        metavar="SHARE",
        help="of the one set there, take this share of the images for validation, such as 0.2",
    )


def add_data_files(
    group: argparse._ArgumentGroup, splits: Sequence[str] = ("train", "val")
) -> None:
    """``--train-json``, ``--train-images``, ``--val-json`` and ``--val-images``."""
    for split in splits:
        group.add_argument(f"--{split}-json", metavar="FILE", help="annotations")
        group.add_argument(f"--{split}-images", metavar="DIR", help="folder of the images")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """``--epochs``, ``--batch``, ``--auto-scale`` and ``--small-batch``."""
    size = parser.add_argument_group("length and batch size other than the recipe's")
    size.add_argument(
        "--epochs",
        type=float,
        metavar="N",
        help="how often each image is seen; evaluations, checkpoints and warm-up follow. Own data "
        "with a packaged config get a length by themselves",
    )
    size.add_argument(
        "--batch",
        type=batch_size,
        metavar="N|auto",
        help="images per iteration; auto: as many as fit into memory, at most the recipe's",
    )
    size.add_argument("--auto-scale", action="store_true", help="scale rate and schedule with it")
    size.add_argument(
        "--small-batch", action="store_true", help="that, clipped gradients and a longer warm-up"
    )


def batch_size(text: str) -> int | str:
    """A number of images, or "auto"."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor auto")
    return int(text)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """How many processes, and where."""
    procs = parser.add_argument_group("processes (not with torchrun or srun, which start them)")
    add = procs.add_argument
    add("--num-gpus", type=int, default=1, help="per machine; 0: use the CPU")
    add("--num-processes", type=int, default=1, help="on the CPU, per machine")
    add("--num-machines", type=int, default=1)
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    add("--dist-url", default="auto", help="tcp://host:port of the first machine")
