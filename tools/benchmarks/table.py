"""Groups of measures, written to one file: those with a target, and those of a GPU."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import data_measures, measures
from .costs import costs
from .measures import Report, Settings, floor_of
from .report import as_text, machine, write_json

VFNET = "vfnet/vfnet_r50_fpn_1x.py"
GFL = "gfl/gfl_r50_fpn_1x.py"
YOLOF = "yolof/yolof_r50_c5_1x.py"
GENERAL = "ablations/gfl_t2a_general_dfl.py"
DIRAC = "ablations/gfl_t2a_dirac.py"
TRAINING = {"batch": 2, "size": (320, 480)}

Row = dict[str, Any]
Group = Callable[[Settings], tuple[list[Row], list[Report]]]


def row(
    measure: str,
    direction: str,
    target: float,
    value: float,
    *,
    spread: float | None = None,
    unit: str = "",
) -> Row:
    """One line of the table. direction: ``"at least"`` or ``"at most"``."""
    met = value >= target if direction == "at least" else value <= target
    return {
        "measure": measure,
        "direction": direction,
        "target": target,
        "value": value,
        "spread": spread,
        "unit": unit,
        "met": met,
    }


def ratio_row(
    measure: str, direction: str, target: float, report: Report, over: str, under: str
) -> Row:
    """The median of ``over / under`` in each round; spread is that of the slower variant."""
    comparison = report.comparison
    spread = max(comparison.timings[name].spread for name in (over, under))
    value = comparison.ratio(over, under)
    return row(measure, direction, target, value, spread=spread)


def _inference(
    config: str, name: str, baseline: str, baseline_target: float, floor_target: float
) -> Group:
    def group(settings: Settings) -> tuple[list[Row], list[Report]]:
        report = measures.inference(config, settings)
        height, width = settings.size
        what = f"inference, batch {settings.batch}, {height}x{width}"
        rows = []
        if baseline in report.comparison.timings:
            text = f"{what}: {baseline} {name} over ours"
            rows.append(ratio_row(text, "at least", baseline_target, report, baseline, "optimised"))
        floor = floor_of(report.comparison)
        text = f"{what}: {name} over its convolution floor"
        rows.append(ratio_row(text, "at most", floor_target, report, "optimised", floor))
        return rows, [report]

    return group


def _training(config: str, name: str) -> Group:
    def group(settings: Settings) -> tuple[list[Row], list[Report]]:
        report = measures.training(config, dataclasses.replace(settings, **TRAINING))
        what = f"training step of {name} R-50, batch 2, 320x480"
        losses, best = "assignment and losses", "bfloat16, channels last"
        return [
            ratio_row(f"{what}: eager over {best}", "at least", 1.3, report, "eager", best),
            ratio_row(f"{what}: share of {losses}", "at most", 0.05, report, losses, best),
        ], [report]

    return group


def _star(settings: Settings) -> tuple[list[Row], list[Report]]:
    report = measures.star_convolution(settings)
    return [
        ratio_row(
            f"{report.title}, {what}: torchvision over ours",
            "at least",
            4.0,
            report,
            f"torchvision, {what}",
            f"ours, {what}",
        )
        for what in ("forward", "forward and backward")
    ], [report]


def _assignment(settings: Settings) -> tuple[list[Row], list[Report]]:
    report = measures.assignment(settings)
    rows = []
    for name, few, many in (("ATSS", 100, 1000), ("uniform", 500, 5000)):
        text = f"{name} assignment: time at {many} boxes over {few}"
        over, under = f"{name}, {many} boxes", f"{name}, {few} boxes"
        rows.append(ratio_row(text, "at most", 11, report, over, under))
        peak = report.comparison.timings[f"{name}, 5000 boxes"].peak_bytes / 2**20
        text = f"{name} assignment: peak extra memory at 5000 boxes"
        rows.append(row(text, "at most", 256, peak, unit="MiB"))
    return rows, [report]


def _evaluation(settings: Settings) -> tuple[list[Row], list[Report]]:
    report = data_measures.evaluation(settings)
    text = "COCO evaluation, 5000 x 100 detections: pycocotools over ours"
    peaks = report.notes["peak MiB"]
    return [
        ratio_row(f"{text}, time", "at least", 8, report, "pycocotools", "ours"),
        row(f"{text}, peak memory", "at least", 2, peaks["pycocotools"] / peaks["ours"]),
    ], [report]


def _importing(settings: Settings) -> tuple[list[Row], list[Report]]:
    report = data_measures.importing(settings)
    timing = report.comparison.timings["import"]
    text = "import and one config, beyond Detectron2's import"
    return [row(text, "at most", 0.5, timing.median, spread=timing.spread, unit="s")], [report]


def _distributions(settings: Settings) -> tuple[list[Row], list[Report]]:
    report = measures.representations(GENERAL, DIRAC, dataclasses.replace(settings, **TRAINING))
    return [
        ratio_row(
            f"GFL R-50, batch 2, 320x480, {what}: general distribution over Dirac delta",
            "at most",
            1.05,
            report,
            f"{what}, general",
            f"{what}, Dirac",
        )
        for what in ("training step", "inference")
    ], [report]


GROUPS: dict[str, Group] = {
    "inference_vfnet": _inference(VFNET, "VFNet R-50", "MMDetection", 1.9, 1.25),
    "inference_gfl": _inference(GFL, "GFL R-50", "MMDetection", 1.35, 1.15),
    "inference_yolof": _inference(YOLOF, "YOLOF R-50-C5", "eager", 1.5, 1.15),
    "star": _star,
    "training_vfnet": _training(VFNET, "VFNet"),
    "training_gfl": _training(GFL, "GFL"),
    "training_yolof": _training(YOLOF, "YOLOF"),
    "distributions": _distributions,
    "assignment": _assignment,
    "evaluation": _evaluation,
    "importing": _importing,
}


def gpu_groups(configs: dict[str, str], batch: int) -> dict[str, Group]:
    """What ``benchmark.py gpu`` measures: training steps, inference and costs, without targets.

    Training is in float32 and by automatic mixed precision, inference in float32 and in half
    precision; the costs stand side by side.

    Args:
        configs: by the names of their groups. batch: images of a training step.
    """
    groups: dict[str, Group] = {}
    for name, config in configs.items():
        groups[f"training_{name}"] = _reports(
            lambda settings, config=config: [
                measures.training(config, dataclasses.replace(settings, batch=batch))
            ]
        )
        groups[f"inference_{name}"] = _reports(
            lambda settings, config=config: [measures.inference(config, settings, peer=False)]
        )
    groups["costs"] = _reports(lambda settings: costs(list(configs.values()), [batch], settings))
    return groups


def _reports(measure: Callable[[Settings], list[Report]]) -> Group:
    return lambda settings: ([], measure(settings))


R50 = {"vfnet": VFNET, "gfl": GFL, "yolof": YOLOF}


def measure_table(
    path: str | os.PathLike[str],
    settings: Settings,
    *,
    groups: dict[str, Group] | None = None,
    only: list[str] | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Measure every group that the JSON file ``path`` lacks, and write it after each of them.

    Args:
        groups: by their names; ``GROUPS`` by default.
        only: some of the names; all by default. again: measure those that are there, too.

    Returns:
        What the file holds: ``machine`` and, by group, ``rows`` and ``reports``.

    Raises:
        ValueError: an unknown group.
    """
    groups = GROUPS if groups is None else groups
    unknown = [name for name in only or () if name not in groups]
    if unknown:
        raise ValueError(f"no such measures: {unknown}; there are {', '.join(groups)}")
    content: dict[str, Any] = {"groups": {}}
    if Path(path).is_file():
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    for name in only or groups:
        if name in content["groups"] and not again:
            continue
        rows, reports = groups[name](settings)
        content["groups"][name] = {
            "machine": machine(),
            "rows": rows,
            "reports": [report.as_dict() for report in reports],
        }
        write_json(content, path)
        print("\n".join(as_text(report) for report in reports), flush=True)
        for one in rows:
            verdict = "met" if one["met"] else "NOT MET"
            wanted = f"{one['direction']} {one['target']:g}"
            print(f"  {one['measure']}: {one['value']:.3f} ({wanted}) {verdict}", flush=True)
    return content


def table_rows(content: dict[str, Any]) -> list[Row]:
    """The rows of all measured groups, in the table's order."""
    measured = content["groups"]
    return [one for name in GROUPS if name in measured for one in measured[name]["rows"]]
