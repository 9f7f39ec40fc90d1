"""A run's output folder: used by one process at a time, and holding one run only."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..config.options import ConfigError
from ..utils.files import write_atomically
from .ending import require_writable, writing

logger = logging.getLogger(f"detectron2.{__name__}")

LOCK, OWNER = ".lock", ".owner.json"
EVALUATIONS = "evaluation"  # each in a numbered folder
CONFIG = "config.yaml"  # written when a training begins
_PATIENCE = 20.0  # seconds for the loader's processes of a killed run to notice that it is gone
# What a run writes, and nothing else: other files in the folder are the user's.
_RUN_FILES = (
    *("model_*.pth", "last_checkpoint", "metrics.json", "events.out.tfevents.*"),
    *("config.yaml", "config_yacs.yaml", "versions.txt", "inference/coco_instances_results.json"),
    *("inference/per_class.csv", "inference/metrics.json", "validation/[0-9][0-9]_*.jpg"),
    *("summary.md", "summary.json", "losses.png", "ap.png"),
)


class RunSeries:
    """The numbered folders of one configuration's runs: ``output/<its name>/001``, ``002``, ...

    Args:
        parent: the folder that holds the runs of all configurations.
        name: the configuration's; what is no letter, digit or one of ``._+-@`` in it becomes ``_``.
    """

    def __init__(self, parent: str | os.PathLike[str], name: str) -> None:
        self.folder = Path(parent) / (re.sub(r"[^\w.+@-]", "_", name) or "_")

    def new_run(self) -> Path:
        """Make the folder of the next number, which no other process gets.

        Raises:
            OutputError: it cannot be made.
        """
        return new_folder(self.folder)

    def new_evaluation(self) -> Path:
        """As :meth:`new_run`, a folder for results that belong to no run."""
        return new_folder(self.folder / EVALUATIONS)

    def newest_run(self) -> Path | None:
        """The run of the highest number that has begun to train; None where there is none."""
        begun = [n for n in _numbers(self.folder) if (_numbered(self.folder, n) / CONFIG).is_file()]
        return _numbered(self.folder, max(begun)) if begun else None


def new_folder(parent: Path) -> Path:
    """Make a folder of the next number below ``parent``, which no other process gets.

    Raises:
        OutputError: it cannot be made.
    """
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = max(_numbers(parent), default=0) + 1
        while True:
            try:
                _numbered(parent, number).mkdir()
            except FileExistsError:  # of a process that came a moment before
                number += 1
            else:
                return _numbered(parent, number)


def _numbers(parent: Path) -> list[int]:
    if not parent.is_dir():
        return []
    names = [path.name for path in parent.iterdir()]
    return [int(name) for name in names if re.fullmatch(r"\d{3,}", name, re.ASCII)]


def _numbered(parent: Path, number: int) -> Path:
    return parent / f"{number:03d}"


class RunFolder:
    """The output folder of one training.

    Args:
        folder: ``train.output_dir``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._before: list[Path] = []  # what an earlier run had left when this one began

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Lock the folder for this process; it is made if it is missing.

        The lock is the operating system's and ends with the process, however that ends. A file
        beside it names the process, for messages of others.

        Raises:
            ConfigError: another training is at work in it; the message names it.
            OutputError: the folder cannot be written to; the message names folder and cause.
        """
        require_writable(self.folder)
        lock = FileLock(self.folder / LOCK)
        with writing(self.folder):
            self._acquire(lock)
            write_atomically(self.folder / OWNER, lambda file: file.write(_this_process()))
        self._before = [path for pattern in _RUN_FILES for path in self.folder.glob(pattern)]
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone, or something in its place
                (self.folder / OWNER).unlink()
            lock.release()

    def _acquire(self, lock: FileLock) -> None:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            owner = self._owner()
        except NotImplementedError:
            logger.warning(
                "%s is on a file system without locks: nothing keeps a second training out of it.",
                self.folder,
            )
            return
        if owner and _has_ended(owner):
            # What still holds the lock are processes that it had started.
            logger.info("Waiting for what process %s has left in %s", owner["pid"], self.folder)
            try:
                lock.acquire(timeout=_PATIENCE)
                return
            except Timeout:
                pass
        raise ConfigError(
            f"Output folder {self.folder} is in use by {_described(owner)}. Choose another one "
            "with --output, or end that training first."
        )

    def _owner(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / OWNER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def remove_if_never_used(self) -> None:
        """Delete the folder, which was made for a run that could then not start."""
        if not any((self.folder / name).exists() for name in (CONFIG, "metrics.json", "inference")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def holds_a_run(self) -> bool:
        """Whether a training has left checkpoints or figures here."""
        marks = [self.folder / "last_checkpoint", *self.folder.glob("model_*.pth")]
        if any(path.is_file() for path in marks):
            return True
        try:
            metrics = (self.folder / "metrics.json").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return '"total_loss"' in metrics  # evaluations alone are no run

    def require_free(self) -> None:
        """Refuse to write a second run into the folder.

        Raises:
            ConfigError: the folder holds a run.
        """
        if self.holds_a_run():
            raise ConfigError(
                f"Output folder {self.folder} holds a run already. Add --resume to continue it, "
                "--overwrite to delete it and start anew, or choose another folder with "
                "--output."
            )

    def clear(self) -> None:
        """Delete the files that an earlier run had left when the folder was locked.

        Its ``log.txt`` is continued, and files that no run writes stay.
        """
        for path in self._before:
            path.unlink(missing_ok=True)
        if self._before:
            logger.warning("--overwrite: %d files of an earlier run deleted", len(self._before))

    def repair_metrics(self, iterations_done: int) -> None:
        """Delete lines of ``metrics.json`` that a resumed run writes again, or that are not whole.

        Args:
            iterations_done: of the checkpoint that training goes on from.
        """
        path = self.folder / "metrics.json"
        if not path.is_file():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept, cut, later = [], 0, 0
        for line in lines:
            iteration = _iteration(line)
            if iteration is None:
                cut += 1
            elif _is_done_again(line, iteration, iterations_done):
                later += 1
            else:
                kept.append(line)
        if cut or later:
            write_atomically(path, lambda file: file.write("".join(kept).encode()))
            logger.info(
                "%s: %d lines of iterations that are done again and %d damaged ones taken out",
                *(path, later, cut),
            )


def _iteration(line: str) -> int | None:
    """The iteration of a line of ``metrics.json``; None where the line is not whole."""
    try:
        value = json.loads(line)["iteration"] if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, int) else None


def _is_done_again(line: str, iteration: int, iterations_done: int) -> bool:
    if '"evaluated"' in line:  # afterwards, and not by the training
        return False
    # The evaluation at the end of a session counts the iterations done; the iteration of that
    # number has losses.
    return iteration > iterations_done or (iteration == iterations_done and '"total_loss"' in line)


def _this_process() -> bytes:
    owner = {
        "pid": os.getpid(),
        "host": platform.node(),
        "process_started": _start_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.argv)[:1000],
    }
    return json.dumps(owner, indent=1).encode()


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return (
        f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')} "
        f"({owner.get('command')})"
    )


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether that process is known to have ended; False for those of other machines."""
    pid = owner.get("pid")
    if owner.get("host") != platform.node() or not isinstance(pid, int):
        return False
    started = _start_of(pid)
    # The system may have given its number to another process since.
    return started is None or started != owner.get("process_started")


def _start_of(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks; None where there is none."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _unknown_start(pid)
    except OSError:
        return _unknown_start(pid)
    fields = content.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _unknown_start(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"
