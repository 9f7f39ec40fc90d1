"""What runs a detector: the rule, files that are found or exported, and what is said."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
from detecting import SIZES, write_detector, write_images
from tiny import shrink, shrink_yolof
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.inference import choice
from vfnet_yolof.inference.choice import Traits, fastest, in_turn
from vfnet_yolof.inference.predictor import Predictor
from vfnet_yolof.runtime import Metadata

ALL = ["native", "onnxruntime", "openvino"]
VFNET_R50 = Traits("x86_64", channels=256, stride=8, winograd=7)
YOLOF_R50 = Traits("x86_64", channels=512, stride=32, winograd=0)
SMALL = Traits("x86_64", channels=64, stride=8, winograd=0)


@pytest.mark.parametrize(
    ("traits", "installed", "order"),
    [
        (VFNET_R50, ALL, ["native"]),
        (YOLOF_R50, ALL, ["openvino", "onnxruntime", "native"]),
        (YOLOF_R50, ["native", "onnxruntime"], ["onnxruntime", "native"]),
        (SMALL, ALL, ["onnxruntime", "openvino", "native"]),
        (SMALL, ["native"], ["native"]),
        (SMALL._replace(machine="aarch64"), ALL, ["native"]),
        (VFNET_R50._replace(stride=32), ALL, ["openvino", "onnxruntime", "native"]),
    ],
)
def test_rule(traits: Traits, installed: list[str], order: list[str]) -> None:
    assert fastest(traits, installed)[0] == order


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vfnet/vfnet_r50_fpn_1x.py", VFNET_R50),
        ("gfl/gfl_r50_fpn_1x.py", VFNET_R50._replace(winograd=8)),
        ("yolof/yolof_r50_c5_1x.py", YOLOF_R50),
        ("gfl/gfl_small_shapes.py", SMALL),
    ],
)
def test_traits_of_packaged_detectors(name: str, expected: Traits) -> None:
    from vfnet_yolof.analysis.cost import build_without_memory
    from vfnet_yolof.config.inference import read_inference_config

    model = build_without_memory(read_inference_config(name).build_model)
    assert Traits.of(model)._replace(machine="x86_64") == expected


def test_runtimes_are_timed_in_turn() -> None:
    """Each action of a round once, and none counts in the round that warms up."""
    called: list[str] = []
    ticks = itertools.count()
    seconds = in_turn(
        {x: lambda x=x: called.append(x) for x in "ab"}, rounds=2, clock=lambda: next(ticks)
    )
    assert "".join(called) == "ababab"
    assert seconds == {"a": [1, 1], "b": [1, 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choice")
    write_detector(folder, shrink_yolof(load_config("yolof/yolof_small_shapes.py")))
    write_images(folder, SIZES[:2])
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """The checkpoint's ONNX file, exported on demand into a cache."""
    pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
    pytest.importorskip("onnxruntime", reason="exporting needs the extra [export]: onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VFNET_YOLOF_CACHE", str(folder / "first"))
        chosen = Predictor(folder / "tiny.pth", device="cpu", runtime="onnxruntime").choice
    assert (chosen.runtime, chosen.why) == ("onnxruntime", "asked for")
    assert chosen.model is not None
    path = Path(chosen.model.detector.path)
    assert path.is_relative_to(folder / "first" / "exported")
    return path


@pytest.fixture
def beside(folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint with its ONNX file beside it, an empty cache, and onnxruntime alone."""
    (tmp_path / "tiny.pth").symlink_to(folder / "tiny.pth")
    for suffix in (".onnx", ".json"):
        shutil.copy(exported.with_suffix(suffix), tmp_path / f"tiny{suffix}")
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "installed_runtimes", lambda: ["native", "onnxruntime"])
    monkeypatch.setattr(choice.platform, "machine", lambda: "x86_64")
    return tmp_path


def no_export(*args: object, **options: object) -> None:
    raise AssertionError("nothing is to be exported")


def test_auto_takes_the_file_beside_the_checkpoint(
    beside: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "export_detector", no_export)
    predictor = Predictor(beside / "tiny.pth", device="cpu", runtime="auto")
    assert predictor.choice.runtime == "onnxruntime"
    assert predictor.choice.model is not None
    assert predictor.choice.model.detector.path == str(beside / "tiny.onnx")
    images = sorted(folder.glob("*.png"))
    native = Predictor(beside / "tiny.pth", device="cpu")
    assert native.choice.runtime == "native"
    for ours, theirs in zip(predictor(images), native(images), strict=True):
        assert len(ours) == len(theirs) > 0
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=0.01, rtol=0
        )
    assert not (beside / "cache").exists()


def test_files_of_other_detectors_and_of_fewer_bits_are_not_taken(
    beside: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lower score threshold, other weights, 8 bits, one size, candidates: exported anew."""
    model = Predictor(beside / "tiny.pth", device="cpu", optimized=False)
    args = model.cfg, model.class_names, None, beside
    chooser = choice.Chooser(model.model, *args)
    metadata = Metadata.from_json(exported.with_suffix(".json").read_text(), exported)
    assert chooser.fits(metadata)
    assert chooser.found("onnxruntime") == beside / "tiny.onnx"
    for change in (
        {"precision": "int8"},
        {"precision": "fp16"},
        {"static_size": [64, 64]},
        {"nms": "outside"},
        {"identity": None},
    ):
        assert not chooser.fits(dataclasses.replace(metadata, **change)), change
    low = Predictor(beside / "tiny.pth", device="cpu", optimized=False, score_thresh=0.0)
    assert choice.Chooser(low.model, *args).found("onnxruntime") is None
    with torch.no_grad():
        model.model.head.cls_logits.bias += 0.1
    assert choice.Chooser(model.model, *args).found("onnxruntime") is None


def test_auto_exports_once_into_the_cache(
    beside: Path,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def export(model: object, config: object, path: Path, *args: object, **options: object) -> None:
        path.parent.mkdir(parents=True)
        shutil.copy(exported, f"{path}.onnx")

    (beside / "tiny.onnx").unlink()
    monkeypatch.setattr(choice, "export_detector", export)
    with caplog.at_level(logging.WARNING):
        first = Predictor(beside / "tiny.pth", device="cpu", runtime="auto").choice
    assert "Exporting" in caplog.text and str(beside / "cache") in caplog.text
    assert first.model is not None
    assert Path(first.model.detector.path).is_relative_to(beside / "cache")
    monkeypatch.setattr(choice, "export_detector", no_export)
    again = Predictor(beside / "tiny.pth", device="cpu", runtime="auto").choice
    assert again.model is not None
    assert again.model.detector.path == first.model.detector.path


def test_native_is_taken_and_said_where_nothing_can_be_exported(
    beside: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (beside / "tiny.onnx").unlink()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with caplog.at_level(logging.WARNING):
        predictor = Predictor(beside / "tiny.pth", device="cpu", runtime="auto")
    assert predictor.choice.runtime == "native"
    assert "onnxruntime is not taken, though installed" in caplog.text
    assert "pip install onnxscript" in caplog.text
    with pytest.raises(ModuleNotFoundError, match="onnxscript"):
        Predictor(beside / "tiny.pth", device="cpu", runtime="onnxruntime")
    with pytest.raises(ModuleNotFoundError, match="openvino is not installed: pip install"):
        Predictor(beside / "tiny.pth", device="cpu", runtime="openvino")


def test_a_measurement_is_kept_and_decides(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one of a clock that the test winds, until what it depends on has changed."""
    taken = {"native": [1.0], "onnxruntime": [2.0]}
    monkeypatch.setattr(choice, "in_turn", lambda actions: {x: taken[x] for x in actions})
    options = {"device": "cpu", "runtime": "auto"}
    measured = Predictor(beside / "tiny.pth", **options, measure_runtimes=True).choice
    assert measured.runtime == "native"
    assert "medians native 1000 ms, onnxruntime 2000 ms" in measured.why
    monkeypatch.setattr(choice, "in_turn", no_export)  # not measured again
    assert Predictor(beside / "tiny.pth", **options, measure_runtimes=True).choice == measured
    assert Predictor(beside / "tiny.pth", **options).choice == measured  # both natively
    (kept,) = (beside / "cache").rglob("measured.json")
    (entry,) = json.loads(kept.read_text())
    assert entry["seconds"] == taken
    assert {"detector", "files", "versions", "processor", "threads", "size"} == set(entry["key"])
    monkeypatch.setattr(choice.processor, "name", lambda: "another processor")
    assert Predictor(beside / "tiny.pth", **options).choice.runtime == "onnxruntime"
    kept.write_text("{")  # damaged: as if nothing had been measured
    assert Predictor(beside / "tiny.pth", **options).choice.runtime == "onnxruntime"


def test_runtimes_that_are_refused(
    beside: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="'tensorrt' is not known: one of auto, native"):
        Predictor(beside / "tiny.pth", runtime="tensorrt")
    with pytest.raises(ConfigError, match="--measure-runtimes is for --runtime auto"):
        Predictor(beside / "tiny.pth", measure_runtimes=True)
    with pytest.raises(ConfigError, match="its kind says what runs it"):
        Predictor(beside / "tiny.onnx", runtime="auto")
    soft = ["model.postprocessor.nms._target_=vfnet_yolof.layers.soft_nms.SoftNMS"]
    with pytest.raises(ConfigError, match="SoftNMS has no form inside of a graph"):
        Predictor(beside / "tiny.pth", device="cpu", overrides=soft, runtime="onnxruntime")
    native = Predictor(beside / "tiny.pth", device="cpu", overrides=soft, runtime="auto")
    assert native.choice.runtime == "native"
    assert "SoftNMS" in native.choice.why
    command = ["predict", str(beside / "tiny.pth"), str(folder / "0.png"), "--runtime", "auto"]
    assert main([*command, "--output", str(tmp_path / "out"), "--draw-star"]) == 2
    assert "leave out --runtime" in capsys.readouterr().err


def test_detectors_with_winograd_run_natively_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = shrink(load_config("gfl/gfl_small_shapes.py"))
    config.model.backbone.out_channels = config.model.head.conv_channels = 192
    write_detector(tmp_path, config)
    monkeypatch.setattr(choice, "installed_runtimes", lambda: ALL)
    monkeypatch.setattr(choice, "export_detector", no_export)
    monkeypatch.setattr(choice.platform, "machine", lambda: "x86_64")
    chosen = Predictor(tmp_path / "tiny.pth", device="cpu", runtime="auto").choice
    assert chosen.runtime == "native"
    assert "Winograd" in chosen.why


def test_command_predict_says_what_runs(
    beside: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out")
    command = ["predict", str(beside / "tiny.pth"), str(folder / "0.png"), "--device", "cpu"]
    assert main([*command, "--runtime", "auto", "--output", output]) == 0
    assert f"runtime: onnxruntime, {beside / 'tiny.onnx'}" in capsys.readouterr().err
