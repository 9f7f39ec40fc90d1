"""The runtimes side by side: PyTorch, onnxruntime, OpenVINO, in 32, 16 and 8 bits.

One process; whole detectors from a resized image to boxes, NMS included. Files are those of
:mod:`.runtime_files`. A file's start is that of a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn
from vfnet_yolof.inference.predictor import Predictor
from vfnet_yolof.optimization import optimize
from vfnet_yolof.runtime import ExportedDetector, Found
from vfnet_yolof.utils.image_arrays import to_array

from .measures import Report, agreement
from .peers import PeerMissing, build_peer, peer_run
from .report import machine, write_json
from .runtime_files import DETECTORS, KINDS, PHOTO, SIZE, about, load_detector, missing
from .table import Row, ratio_row, row
from .timing import Run, compare

PEER, PLAIN, NATIVE, NATIVE_BF16 = "MMDetection", "plain", "native", "native bfloat16"
FP32 = (NATIVE, KINDS["ort"].title, KINDS["ov"].title)
INT8 = (KINDS["ort8"].title, KINDS["ov8"].title)
INT8_ALL = (KINDS["ort8all"].title, KINDS["ov8all"].title)
WHOLE = "{}, file to boxes"
MARKS = ("<!-- runtimes: begin -->", "<!-- runtimes: end -->")
_STARTED = ("ort", "ov", "ort8")  # files of which the start is measured
_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "mmdet", "detectron2")
# Ratios that are wanted at least, by detector.
_TARGETS = {
    "VFNet": {"peer": 1.9, "peer int8": 4.5, "int8": 2.5},
    "GFL": {"peer": 1.35, "peer int8": 4.0, "int8": 3.0},
    "YOLOF": {"plain": 1.6, "plain int8": 5.0, "int8": 3.5},
}
_WHOLE_TARGET, _START_TARGET = 1.15, 2.0  # at most; the latter in seconds

_FRESH = """
import sys
from vfnet_yolof.runtime import ExportedDetector
ExportedDetector(sys.argv[1], threads=int(sys.argv[2]))(sys.argv[3])
"""

Left = dict[str, str]  # what could not be measured, and why


def measure_runtimes(
    folder: Path,
    *,
    rounds: int = 9,
    threads: int = 2,
    detectors: Sequence[str] = tuple(DETECTORS),
    json_path: str | os.PathLike[str] | None = None,
    tell: Callable[[Report], None] = lambda report: None,
) -> dict[str, Any]:
    """Measure all that can be measured here; ``json_path`` is written after each detector.

    Returns:
        ``machine``, ``packages``, ``files``, ``rounds``, and ``detectors``: by name ``rows``,
        ``reports`` and ``left_out``.

    Raises:
        FileNotFoundError: the folder was not prepared.
    """
    content: dict[str, Any] = {
        "machine": machine(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "files": about(folder),
        "rounds": rounds,
        "detectors": {},
    }
    for name in detectors:
        left_out: Left = {}
        speed = _speed(folder, name, rounds, threads, left_out)
        tell(speed)
        start = _start(folder, name, rounds, threads)
        tell(start)
        content["detectors"][name] = {
            "rows": rows(name, speed, start),
            "left_out": left_out,
            "reports": {"speed": speed.as_dict(), "start": start.as_dict()},
        }
        if json_path is not None:
            write_json(content, json_path)
    return content


def _speed(folder: Path, name: str, rounds: int, threads: int, left_out: Left) -> Report:
    checkpoint, photo = folder / f"{name}.pth", folder / PHOTO
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint} is missing: make the files first, with --prepare")
    model = load_detector(checkpoint)
    array = to_array(photo, model.input_format)
    image = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    inputs = [{"image": image, "height": SIZE[0], "width": SIZE[1]}]
    variants: dict[str, Run] = {}
    try:
        peer = peer_run(build_peer(model), inputs, swap_channels=model.input_format == "RGB")
        variants[PEER] = _without_grad(peer)
    except PeerMissing as reason:
        left_out[PEER] = str(reason)
    variants[PLAIN] = _detects(model, inputs)
    variants[NATIVE] = _detects(optimize(model), inputs)
    variants[NATIVE_BF16] = _detects(optimize(model, dtype=torch.bfloat16), inputs)
    lowest = model.postprocessor.score_thresh
    predictor = Predictor(checkpoint, device="cpu", score_thresh=lowest)
    whole: dict[str, Run] = {NATIVE: partial(predictor, str(photo))}
    for kind in KINDS.values():
        path = kind.path(folder, name)
        if not path.is_file() or missing(kind):
            lacks = ", ".join(missing(kind)) or path.name
            left_out[kind.title] = f"{lacks} is not there"
            continue
        detector = ExportedDetector(path, score_thresh=lowest, threads=threads)
        prepared = detector.metadata.prepared(array)[None]
        variants[kind.title] = partial(_detected, detector, prepared)
        if kind.title in FP32:
            whole[kind.title] = partial(detector, str(photo))
    want = variants[PLAIN]()
    notes = {
        "agreement with plain": {
            title: agreement(run(), want) for title, run in variants.items() if title != PLAIN
        },
        "detections": float(len(want[0])),
    }
    variants |= {WHOLE.format(title): run for title, run in whole.items()}
    timed = compare(variants, repeats=rounds, warmup=1, memory=False)
    return Report(f"{name} R-50, {SIZE[0]}x{SIZE[1]}, batch 1, {threads} threads", timed, notes)


def _start(folder: Path, name: str, rounds: int, threads: int) -> Report:
    """From the start of Python to the first detection, in a new process each time."""
    files = {
        kind.title: path
        for kind in (KINDS[key] for key in _STARTED)
        if not missing(kind) and (path := kind.path(folder, name)).is_file()
    }
    runs: dict[str, Run] = {
        title: partial(
            subprocess.run,
            [sys.executable, "-c", _FRESH, str(path), str(threads), str(folder / PHOTO)],
            check=True,
        )
        for title, path in files.items()
    }
    timed = compare(runs, repeats=rounds, warmup=1, memory=False)
    return Report(f"{name}: start of Python to the first detection, a file of 480x640 px", timed)


def rows(name: str, speed: Report, start: Report) -> list[Row]:
    """Ratios of one detector that have a target, of what was measured."""
    timings, found = speed.comparison.timings, list[Row]()

    def ratio(what: str, target: float | None, over: str, under: str | None) -> None:
        if target is not None and under is not None and over in timings:
            text = f"{name}: {what} ({under})"
            found.append(ratio_row(text, "at least", target, speed, over, under))

    best = fastest(speed, FP32)
    low, low_all = fastest(speed, INT8), fastest(speed, INT8_ALL)
    assert best is not None  # the native one is always there
    targets = _TARGETS[name]
    ratio("MMDetection over best fp32", targets.get("peer"), PEER, best)
    ratio("plain over best fp32", targets.get("plain"), PLAIN, best)
    ratio("MMDetection over int8", targets.get("peer int8"), PEER, low)
    ratio("plain over int8", targets.get("plain int8"), PLAIN, low)
    ratio(f"best fp32 ({best}) over int8", targets["int8"], best, low)
    ratio(f"best fp32 ({best}) over int8 of all layers", targets["int8"], best, low_all)
    whole = WHOLE.format(best)
    text = f"{name}: file to boxes over the network alone ({best})"
    found.append(ratio_row(text, "at most", _WHOLE_TARGET, speed, whole, best))
    title = KINDS["ort"].title
    if title in start.comparison.timings:
        timing = start.comparison.timings[title]
        text = f"{name}: start to first detection ({title})"
        limits: dict[str, Any] = {"spread": timing.spread, "unit": "s"}
        found.append(row(text, "at most", _START_TARGET, timing.median, **limits))
    return found


def fastest(report: Report, titles: Sequence[str]) -> str | None:
    """The title with the smallest median among those that were measured."""
    measured = [title for title in titles if title in report.comparison.timings]
    return report.comparison.fastest(*measured) if measured else None


def times_table(content: dict[str, Any]) -> str:
    """Medians in ms as Markdown, a line for each variant and a column for each detector."""
    columns = content["detectors"]
    speeds = {name: columns[name]["reports"]["speed"]["variants"] for name in columns}
    titles = list(dict.fromkeys(title for one in speeds.values() for title in one))
    lines = [f"| ms | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for title in titles:
        cells = [
            f"{1e3 * one[title]['median_s']:.0f}" if title in one else "–"
            for one in speeds.values()
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def left_out_line(content: dict[str, Any]) -> str:
    """One line on what was not measured, or ""."""
    texts = [
        f"{name}: {title} ({reason})"
        for name, one in content["detectors"].items()
        for title, reason in one["left_out"].items()
    ]
    return f"Not measured: {'; '.join(texts)}." if texts else ""


def _detects(model: nn.Module, inputs: list[dict[str, Any]]) -> Callable[[], list[Instances]]:
    return _without_grad(lambda: [x["instances"] for x in model(inputs)])


def _without_grad(run: Callable[[], list[Instances]]) -> Callable[[], list[Instances]]:
    def wrapped() -> list[Instances]:
        with torch.inference_mode():
            return run()

    return wrapped


def _detected(detector: ExportedDetector, images: np.ndarray) -> list[Instances]:
    return [_instances(found, images) for found in detector.run(images)]


def _instances(found: Found, images: np.ndarray) -> Instances:
    return Instances(
        (images.shape[2], images.shape[3]),
        pred_boxes=Boxes(torch.from_numpy(found.boxes.copy())),
        scores=torch.from_numpy(found.scores.copy()),
        pred_classes=torch.from_numpy(found.classes.copy()),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
