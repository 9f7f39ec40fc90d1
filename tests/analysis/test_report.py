"""The report: its files and page, what it says of odd data, and what it refuses."""

import base64
import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scored_data import detections, found_of, random_scored, truth, write_files
from vfnet_yolof.analysis.report import PAGE, THRESHOLDS, Options, analyse, write_report
from vfnet_yolof.analysis.scored import Truth, truth_of_file
from vfnet_yolof.cli.main import main

BOX = [100.0, 100.0, 100.0, 100.0]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with annotations, images and results of a detector that errs in every way."""
    return write_files(tmp_path, random_scored(1))


def report_command(folder: Path, *options: str) -> list[str]:
    return [
        *("report", "--results", str(folder / "results.json")),
        *("--annotations", str(folder / "truth.json"), "--output", str(folder / "report")),
        *options,
    ]


def test_from_files(files: Path, capsys: Output) -> None:
    assert main(report_command(files, "--images", str(files / "images"))) == 0
    said = capsys.readouterr().out
    folder = files / "report"
    page = (folder / PAGE).read_text()
    assert str(folder / PAGE) in said
    # Nothing is fetched: all images are in the page, and no address is in it.
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|https?://|<script|<link", page)
    assert page.count("data:image/svg+xml") == 8
    assert page.count("data:image/jpeg") == 12
    for chart in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        assert b"<script" not in base64.b64decode(chart)
    content = json.loads((folder / "report.json").read_text())
    assert content["ap"]["AP"] == pytest.approx(float(said.split()[1].rstrip(",")), abs=0.05)
    with open(folder / "classes.csv") as file:
        rows = list(csv.DictReader(file))
    mean = np.mean([float(row["AP"]) for row in rows])
    assert content["ap"]["AP"] == pytest.approx(mean, abs=1e-3)
    thresholds = json.loads((folder / THRESHOLDS).read_text())["thresholds"]
    assert thresholds == {
        row["class"]: pytest.approx(float(row["threshold"]), abs=1e-4) for row in rows
    }
    confusion = np.array(content["confusion"]["counts"])
    with open(folder / "images.csv") as file:
        images = list(csv.DictReader(file))
    assert sum(int(row["hits"]) for row in images) == np.trace(confusion)
    assert sum(int(row["boxes"]) for row in images) == content["data"]["boxes"]
    again = truth_of_file(files / "truth.json")
    assert again.crowds.sum() == content["data"]["crowds"] > 0
    assert "regions are crowds" in said


def test_without_images_and_with_one_threshold(files: Path, capsys: Output) -> None:
    options = ("--score-threshold", "0.6", "--iou", "0.75", "--max-dets", "2")
    assert main(report_command(files, *options)) == 0
    assert "only the best 2 of a class count" in capsys.readouterr().out
    content = json.loads((files / "report" / "report.json").read_text())
    assert set(content["score_thresholds"].values()) == {0.6}
    assert "Not drawn" in (files / "report" / PAGE).read_text()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 99}, r"image_id that the annotations do not have: 99 in entry 0"),
        ({"category_id": 77}, r"category_id that the annotations do not have: 77 in entry 0"),
        ({"score": math.nan}, r"score that is no number from 0 to 1: nan in entry 0"),
        ({"score": 87.0}, r"score that is no number from 0 to 1: 87.0"),
        ({"bbox": [1, 2, 3]}, r"box that is not four numbers x, y, width, height"),
        ({"bbox": [1, 2, -3, 4]}, r"box that is not four numbers"),
        ({"bbox": [1, 2, math.inf, 4]}, r"box that is not four numbers"),
    ],
)
def test_refused_by_name(files: Path, capsys: Output, entry: dict, message: str) -> None:
    rows = json.loads((files / "results.json").read_text())
    rows[0].update(entry)
    (files / "results.json").write_text(json.dumps(rows))
    assert main(report_command(files)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "results.json" in error


def test_files_and_options_that_are_refused(files: Path, capsys: Output) -> None:
    for change, message in (
        (("--results", str(files / "none.json")), "There is no results file"),
        (("--results", str(files / "truth.json")), "is no results file"),
        (("--images", str(files / "none")), "There is no folder"),
        (("--iou", "0.52"), "--iou must be one of"),
        (("--score-threshold", "30"), "--score-threshold must lie"),
    ):
        assert main(report_command(files, *change)) == 2
        assert message in capsys.readouterr().err
    (files / "results.json").write_text("[1, {}]")
    assert main(report_command(files)) == 2
    assert "entry 0 is no object: 1" in capsys.readouterr().err


def test_no_detections_are_shown(files: Path, capsys: Output) -> None:
    (files / "results.json").write_text("[]")
    assert main(report_command(files)) == 0
    assert "not a single detection" in capsys.readouterr().out
    assert json.loads((files / "report" / THRESHOLDS).read_text())["thresholds"] == {}


def test_results_that_overlap_nothing_are_told() -> None:
    ground = truth([(0, 0, BOX)], images=2, classes=2)
    report = analyse(ground, detections([(0, 0, [500.0, 500.0, 10.0, 10.0], 0.5)]))
    assert any("No detection overlaps any box" in note for note in report.notes)
    assert any("1 of 2 images have no detection" in note for note in report.notes)
    assert any(
        "Classes without boxes here, and without AP: 1 (class1)." in note for note in report.notes
    )


def test_names_that_are_markup(tmp_path: Path) -> None:
    scored = random_scored(2)
    odd = ["<b>cat</b>", "$x$", "_dog", "犬"]
    ground = Truth(**{**vars_of(scored.truth), "class_names": odd, "name": "<script>"})
    page = write_report(analyse(ground, found_of(scored)), tmp_path).read_text()
    assert "<script" not in page and "<b>cat" not in page
    assert "&lt;b&gt;cat&lt;/b&gt;" in page and "犬" in page


def vars_of(ground: Truth) -> dict:
    return {name: getattr(ground, name) for name in Truth.__dataclass_fields__}


def test_many_classes_have_no_drawn_matrix(tmp_path: Path) -> None:
    scored = random_scored(0, images=4, classes=30)
    page = write_report(analyse(scored.truth, found_of(scored), Options(images=0)), tmp_path)
    assert page.read_text().count("data:image/svg+xml") == 7
