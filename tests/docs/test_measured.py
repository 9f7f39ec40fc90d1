"""Tables of measurements say what the files beside them say."""

import json
import statistics
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_yolofs_table_6() -> None:
    content = json.loads((DOCS / "yolof_table6.json").read_text())
    step, eager, optimised = content["reports"]
    measured = step["notes"]["detectors"]
    rows: dict[str, list[str]] = {  # with the paper's cells
        "images of a step": ["8", "2"],
        "memory of training": ["5.3 GB", "4.9 GB"],
        "memory, an image": ["0.66 GB", "2.45 GB"],
    }
    each, listed_seconds = [], []
    for name, found in measured.items():
        images, gib = found["batch"], found["training_mib"] / 1024
        rows["images of a step"].append(str(images))
        rows["memory of training"].append(f"{gib:.2f} GiB")
        rows["memory, an image"].append(f"{gib / images:.2f} GiB")
        each.append(step["variants"][name]["median_s"] / images)
        seconds = step["variants"][name]["seconds"]
        listed_seconds.append(", ".join(f"{x:.1f}" for x in seconds))
    rows["time of the schedule"] = ["4.5 h", "9.8 h", *(f"{x:.2f} s an image" for x in each)]
    rows["its ratio"] = ["2.18", "", f"{each[1] / each[0]:.2f}", ""]
    yolof, retinanet = listed_seconds

    page = " ".join((DOCS / "yolof_comparisons.md").read_text().split())
    for name, cells in rows.items():
        row = f"| {name} | {' | '.join(cells)} |".replace("|  |", "| |")
        assert row in page
    assert f"seconds of a step: {yolof} of YOLOF, {retinanet} of RetinaNet+" in page
    for report, how in ((eager, "eager"), (optimised, "optimised")):
        other = next(x for x in report["variants"] if "retinanet" in x)
        (pairs,) = (
            variant[f"over {other}"]["pairs"]
            for name, variant in report["variants"].items()
            if name != other
        )
        listed = ", ".join(f"{x:.2f}" for x in pairs)
        assert f"{statistics.median(pairs):.2f} times ({how}; {listed})" in page
