"""The benchmark of the runtimes: its files, its rows, its tables."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import report, runtime_files, runtimes
from benchmarks.cli import main
from benchmarks.measures import Report
from benchmarks.runtimes import MARKS, NATIVE, PEER, PLAIN, WHOLE, left_out_line, times_table
from benchmarks.timing import Comparison, Timing


def fake(**seconds: float) -> Report:
    """One round of each variant; names with _ for spaces."""
    timings = {name.replace("_", " "): Timing((x,), 0) for name, x in seconds.items()}
    return Report("fake", Comparison(timings))


def speed(**more: float) -> Report:
    made = fake(plain=0.6, native=0.4, onnxruntime_fp32=0.3, onnxruntime_int8=0.1, **more)
    whole = {WHOLE.format("onnxruntime fp32"): Timing((0.33,), 0)}
    return Report("fake", Comparison({**made.comparison.timings, **whole}))


def as_pairs(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["measure"]: round(row["value"], 3) for row in rows}


def test_rows_compare_with_the_fastest() -> None:
    start = fake(onnxruntime_fp32=1.5)
    assert as_pairs(runtimes.rows("YOLOF", speed(), start)) == {
        "YOLOF: plain over best fp32 (onnxruntime fp32)": 2.0,
        "YOLOF: plain over int8 (onnxruntime int8)": 6.0,
        "YOLOF: best fp32 (onnxruntime fp32) over int8 (onnxruntime int8)": 3.0,
        "YOLOF: file to boxes over the network alone (onnxruntime fp32)": 1.1,
        "YOLOF: start to first detection (onnxruntime fp32)": 1.5,
    }
    faster = speed(OpenVINO_int8=0.05, MMDetection=0.9)
    found = as_pairs(runtimes.rows("VFNet", faster, fake(other=1.0)))
    assert found == {
        "VFNet: MMDetection over best fp32 (onnxruntime fp32)": 3.0,
        "VFNet: MMDetection over int8 (OpenVINO int8)": 18.0,
        "VFNet: best fp32 (onnxruntime fp32) over int8 (OpenVINO int8)": 6.0,
        "VFNet: file to boxes over the network alone (onnxruntime fp32)": 1.1,
    }


def test_what_is_missing_is_left_out_and_named() -> None:
    reports = {"speed": fake(plain=0.5, native=0.25).as_dict()}
    other = {"speed": fake(plain=1.0).as_dict()}
    content = {
        "detectors": {
            "GFL": {"reports": reports, "left_out": {PEER: "mmdet is not installed"}},
            "YOLOF": {"reports": other, "left_out": {}},
        }
    }
    assert times_table(content).splitlines() == [
        "| ms | GFL | YOLOF |",
        "|---|--:|--:|",
        "| plain | 500 | 1000 |",
        "| native | 250 | – |",
    ]
    assert left_out_line(content) == "Not measured: GFL: MMDetection (mmdet is not installed)."


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "--prepare DIR, --files DIR"),
        (["--files", "nowhere"], "nowhere has no about.json"),
        (["--files", "nowhere", "--detectors", "SSD"], "no such detector: SSD"),
        (["--files", "nowhere", "--markdown", "absent.md"], "absent.md"),
    ],
)
def test_refused(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runtimes", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_a_document_without_marks_is_refused_before_the_measuring(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("nothing")
    with pytest.raises(ValueError, match="needs the lines"):
        report.require_marks(document, MARKS)


@pytest.mark.slow
def test_files_are_made_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
    pytest.importorskip("onnxruntime", reason="exporting needs the extra [export]: onnxruntime")
    small = {"YOLOF": "yolof/yolof_small_shapes.py"}
    for module in (runtime_files, runtimes):
        monkeypatch.setattr(module, "DETECTORS", small)
        monkeypatch.setattr(module, "SIZE", (64, 96))
    only = {key: runtime_files.KINDS[key] for key in ("ort", "ort8", "ort8all")}
    for module in (runtime_files, runtimes):
        monkeypatch.setattr(module, "KINDS", {**only, "ov": runtime_files.KINDS["ov"]})
    monkeypatch.setattr(
        runtime_files, "missing", lambda kind: ["openvino"] if "OpenVINO" in kind.title else []
    )
    monkeypatch.setattr(runtimes, "missing", runtime_files.missing)
    document, figures = tmp_path / "page.md", tmp_path / "figures.json"
    document.write_text("\n".join(["before", *MARKS, "after"]))
    files = str(tmp_path / "files")
    options = ["--rounds", "1", "--json", str(figures), "--markdown", str(document)]
    threads = str(torch.get_num_threads())
    assert (
        main(["runtimes", "--prepare", files, "--files", files, "--threads", threads, *options])
        == 0
    )
    content = json.loads(figures.read_text())
    assert content["files"]["calibration"].startswith("noise: 2 of 2 images")
    measured = content["detectors"]["YOLOF"]
    titles = [kind.title for kind in only.values()]
    assert [x for x in measured["reports"]["speed"]["variants"] if "to boxes" not in x] == [
        PLAIN,
        NATIVE,
        "native bfloat16",
        *titles,
    ]
    assert measured["left_out"]["OpenVINO fp32"] == "openvino is not there"
    agreement = measured["reports"]["speed"]["notes"]["agreement with plain"]
    assert agreement["onnxruntime fp32"]["boxes_px"] < 0.05  # random weights
    assert agreement["onnxruntime fp32"]["counts"] == 0
    assert "YOLOF: start to first detection (onnxruntime fp32)" in as_pairs(measured["rows"])
    text = document.read_text()
    assert "| plain |" in text and "Not measured: YOLOF: MMDetection" in text
    assert "best fp32" in capsys.readouterr().out
