"""Reports as text, as JSON and as a table in a document."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from vfnet_yolof.utils.files import write_atomically

from .measures import Report

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def write_json(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Replace ``path`` by ``content`` once it is complete."""
    data = json.dumps(content, indent=1, allow_nan=False).encode()
    write_atomically(path, lambda file: file.write(data))


def as_text(report: Report) -> str:
    """Medians, spread, memory, and the ratios to the last variant pair by pair."""
    comparison = report.comparison
    names = list(comparison.timings)
    width = max(len(name) for name in names)
    lines = [report.title]
    for key, value in report.notes.items():
        lines.append(f"  {key}: {value}")
    lines.append(f"  {'':{width}}   median s  spread  peak MiB   ratio to the last, pair by pair")
    for name in names:
        timing = comparison.timings[name]
        pairs = " ".join(f"{x:.2f}" for x in comparison.ratios(name, names[-1]))
        lines.append(
            f"  {name:{width}}  {timing.median:9.4f}  {timing.spread:5.0%}  "
            f"{timing.peak_bytes / 2**20:8.1f}   {comparison.ratio(name, names[-1]):.3f}: {pairs}"
        )
    return "\n".join(lines)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of ``rows``, see :mod:`.table`."""
    lines = ["| measure | target | measured | spread |", "|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row["direction"] == "at least" else "≤"
        unit = f" {row['unit']}" if row["unit"] else ""
        mark = "" if row["met"] else " (not met)"
        spread = "–" if row["spread"] is None else f"{row['spread']:.0%}"
        lines.append(
            f"| {row['measure']} | {sign} {row['target']:g}{unit} | "
            f"{row['value']:.3g}{unit}{mark} | {spread} |"
        )
    return "\n".join(lines)


def replace_table(
    path: str | os.PathLike[str], table: str, marks: tuple[str, str] = (BEGIN, END)
) -> None:
    """Put ``table`` between the two marks in the document ``path``.

    Raises:
        ValueError: the document has no such marks.
    """
    before, after = _around(path, marks)
    data = f"{before}{marks[0]}\n\n{table}\n\n{marks[1]}{after}".encode()
    write_atomically(path, lambda file: file.write(data))


def require_marks(path: str | os.PathLike[str], marks: tuple[str, str]) -> None:
    """Make sure, before anything takes long, that :func:`replace_table` can be used."""
    _around(path, marks)


def _around(path: str | os.PathLike[str], marks: tuple[str, str]) -> tuple[str, str]:
    begin, end = marks
    text = Path(path).read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path} needs the lines {begin} and {end} once each, around the table")
    before, _, rest = text.partition(begin)
    return before, rest.partition(end)[2]
