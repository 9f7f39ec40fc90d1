"""``vfnet-yolof``: the table of its commands, and how each of them begins and ends."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from ..engine.ending import EXIT_REFUSED, EXIT_SIGNAL, ctrl_c_kept
from ..utils import __version__, threads
from ..utils.quiet import keep_warnings_off_console

PROG = "vfnet-yolof"


class Entry(NamedTuple):
    """Where a command is found: its module is imported when it runs or is asked for help."""

    summary: str
    module: str
    name: str


COMMANDS = {
    "train": Entry("train a detector", "train", "TRAIN"),
    "evaluate": Entry("COCO's measures of a detector on a data set", "train", "EVALUATE"),
    "predict": Entry("detect in images, videos or from a camera", "predict", "PREDICT"),
    "export": Entry("ONNX, OpenVINO or torch.export, checked", "export", "EXPORT"),
    "deploy": Entry("an exported file for Triton, TensorRT or a browser", "deploy", "DEPLOY"),
    "convert": Entry("another project's weights for a config of this one", "weights", "CONVERT"),
    "validate-data": Entry("faults in a data set", "data", "VALIDATE"),
    "convert-data": Entry("a data set of another format as COCO JSON", "data", "CONVERT"),
    "report": Entry("why a detector fails, from its results, on a page", "report", "REPORT"),
    "analyze": Entry("parameters, multiply-adds and anchors, by part", "reports", "ANALYZE"),
    "diagram": Entry("a detector's blocks, drawn from the built model", "reports", "DIAGRAM"),
    "show-augmentations": Entry("training images as the model gets them", "reports", "SHOW"),
    "compare": Entry("two detectors, or several configs and seeds", "compare", "COMPARE"),
    "study": Entry("a paper's ablation table, trained anew", "study", "STUDY"),
    "figure": Entry("a figure of the papers, of your detectors and data", "figure", "FIGURE"),
    "ranking": Entry("how far a detector is from its own oracle", "ranking", "RANKING"),
    "average": Entry("the mean of several checkpoints", "weights", "AVERAGE"),
    "zoo": Entry("the papers' rows: list, fetch, verify their weights", "zoo", "ZOO"),
    "install-detectron2": Entry("Detectron2 0.6, repaired for today's packages", "doctor", ""),
    "doctor": Entry("versions, devices, and what is missing for what", "doctor", "DOCTOR"),
}


def usage() -> str:
    """The text of ``vfnet-yolof --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {entry.summary}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} COMMAND MODEL [OPERAND ...] [key=value ...] [--option ...]",
            "",
            "VFNet, GFL and YOLOF on Detectron2.",
            "",
            *lines,
            "",
            "MODEL is a checkpoint, which carries its config; a run's folder, which stands for its",
            "best one; a config's path; or a packaged config's name. --weights FILE names other",
            "weights. key=value changes the config. --data, --output, --device and --seed mean the",
            "same everywhere.",
            "",
            "examples:",
            f"  {PROG} train vfnet/vfnet_small_shapes.py --output output/first train.max_iter=20",
            f"  {PROG} evaluate output/first",
            f"  {PROG} predict output/first street.jpg --output results",
            f"  {PROG} COMMAND --help",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["study", "ranking"]:  # a study of a paper, too, but trains nothing
        given[:2] = ["ranking"]
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"{PROG} {__version__}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: {PROG} has no command {name!r}. There are: {known}", file=sys.stderr)
        return EXIT_REFUSED
    prog = f"{PROG} {name}"
    if name == "install-detectron2":
        from ..installer.install import main as install

        return install(rest, prog)
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(f".{entry.module}", __package__), entry.name)
    args = command.parsed(prog, rest)
    return told(lambda: int(command.run(args)))


def told(action: Callable[[], int], refused: int = EXIT_REFUSED) -> int:
    """The exit status of ``action``; a mistake of the user's becomes one line.

    Args:
        refused: the status for arguments, configs, data or checkpoints that cannot be right.
    """
    keep_warnings_off_console()
    try:
        with ctrl_c_kept():
            return action()
    except KeyboardInterrupt:
        print("error: stopped at once by Ctrl-C", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SIGNAL + signal.SIGPIPE
    except ModuleNotFoundError as error:
        hint = _how_to_get(error.name or "")
        if not hint:
            raise
        print(f"error: {error.name} is not installed: {hint}", file=sys.stderr)
        return refused
    except Exception as error:
        from .training import EXPECTED, report

        if not isinstance(error, (*EXPECTED, ValueError)):
            raise
        status = report(error)
        return refused if status == EXIT_REFUSED else status


def _how_to_get(module: str) -> str:
    """The command that installs a package without which nothing works; "" for others."""
    name = module.partition(".")[0]
    if name in ("torch", "torchvision"):
        return "pip install torch torchvision"
    if name in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
        return f"pip install {name}"
    return f"{PROG} install-detectron2" if name == "detectron2" else ""


def console(action: Callable[[], int] = main) -> NoReturn:
    """The program ``vfnet-yolof``, or one of ``tools/``: run ``action`` and end with its status."""
    threads.prepare()
    status = action()
    # All is told: Ctrl-C changes none of it while Python is torn down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch = sys.modules.get("vfnet_yolof.engine.launch")
    if launch is not None and launch.had_gloo:
        launch.leave(status)
    sys.exit(status)
