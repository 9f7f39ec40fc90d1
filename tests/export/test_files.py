"""Exported files: written, checked, predicted with; and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detecting import CLASS_NAMES as NAMES
from detecting import SIZES, write_detector, write_images
from omegaconf import DictConfig
from PIL import Image
from tiny import shrink, shrink_yolof
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.export import check
from vfnet_yolof.export.write import describe
from vfnet_yolof.inference.predictor import Predictor
from vfnet_yolof.model_zoo import ROWS, license_of
from vfnet_yolof.runtime import ExportedDetector, ExportedFileError, Metadata
from vfnet_yolof.runtime.detector import load_program, open_graph, run_program
from vfnet_yolof.runtime.metadata import _resize, noted_checksums, resized

pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
onnx = pytest.importorskip("onnx", reason="exporting needs the extra [export]: onnx")
pytest.importorskip("onnxruntime", reason="exporting needs the extra [export]: onnxruntime")

Output = pytest.CaptureFixture[str]
HARD_NMS = "vfnet_yolof.layers.nms.HardNMS"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny YOLOF with detections in every image, and three images."""
    folder = tmp_path_factory.mktemp("export")
    write_detector(folder, shrink_yolof(load_config("yolof/yolof_small_shapes.py")))
    write_images(folder, SIZES[:3])
    return folder


def export(folder: Path, output: str, *options: str) -> int:
    return main(["export", str(folder / "tiny.pth"), "--output", str(folder / output), *options])


@pytest.fixture(scope="module")
def onnx_file(folder: Path) -> Path:
    assert export(folder, "onnx") == 0
    return folder / "onnx" / "tiny.onnx"


def expect_same(file: Path, folder: Path, **options: bool) -> None:
    """The predictor gives for the file what it gives for the checkpoint."""
    images = sorted(folder.glob("*.png"))
    native = Predictor(folder / "tiny.pth", device="cpu", optimized=False)(images)
    predictor = Predictor(file, **options)
    assert predictor.class_names == NAMES
    for theirs, ours in zip(native, predictor(images), strict=True):
        assert len(theirs) == len(ours) > 0
        assert theirs.image_size == ours.image_size
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-2, rtol=0
        )
        assert ours.pred_classes.tolist() == theirs.pred_classes.tolist()


def test_onnx_predicts_the_same(onnx_file: Path, folder: Path) -> None:
    expect_same(onnx_file, folder)
    assert Metadata.from_json(onnx_file.with_suffix(".json").read_text(), "").class_names == NAMES
    assert sorted(x.name for x in onnx_file.parent.iterdir()) == ["tiny.json", "tiny.onnx"]
    inside = onnx.load(onnx_file).metadata_props[0].value
    beside = json.loads(onnx_file.with_suffix(".json").read_text())
    assert list(beside.pop("crc32")) == [".onnx"]
    assert json.loads(inside) == beside
    assert json.loads(inside)["license"] is None  # these weights are no published ones


def test_what_the_file_holds_back_is_said(
    onnx_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A detector lowers its own threshold to what is asked for; a file cannot."""
    Predictor(onnx_file, score_thresh=0.05)
    assert not caplog.records
    Predictor(onnx_file, score_thresh=0.01)
    Predictor(onnx_file, thresholds={"bee": 0.02})
    for record, asked in zip(caplog.records, ("0.01", "0.02"), strict=True):
        assert f"gives nothing that scores below 0.05, its own threshold, though {asked}" in (
            record.getMessage()
        )


def test_a_pickled_predictor_opens_the_file_again(onnx_file: Path, folder: Path) -> None:
    predictor = Predictor(onnx_file)
    copied = pickle.loads(pickle.dumps(predictor))
    image = folder / "0.png"
    assert copied(image).scores.equal(predictor(image).scores)


def test_command_predict_takes_the_file(
    onnx_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    found = tmp_path / "found.json"
    command = ["predict", str(onnx_file), str(folder / "0.png"), "--output", str(tmp_path / "out")]
    assert main([*command, "--json", str(found)]) == 0
    assert json.loads(found.read_text())
    assert main([*command, "--weights", str(folder / "tiny.pth")]) == 2
    assert "exported detector: it has its weights and settings inside" in capsys.readouterr().err


def test_runtime_without_torch(onnx_file: Path, folder: Path) -> None:
    """The same boxes in a process that can import neither PyTorch nor Detectron2."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'detectron2', 'fvcore', 'omegaconf'):\n"
        "    sys.modules[name] = None\n"
        "from vfnet_yolof.runtime import ExportedDetector\n"
        f"found = ExportedDetector({str(onnx_file)!r})({str(folder / '1.png')!r})\n"
        "print(found.boxes.tolist())\n"
    )
    path = str(Path(__file__).parents[2] / "projects")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr
    expected = Predictor(onnx_file)(folder / "1.png").pred_boxes.tensor
    assert len(expected)
    torch.testing.assert_close(torch.tensor(json.loads(result.stdout)), expected)


@pytest.fixture(scope="module")
def runtime_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but ``vfnet-yolof-runtime``."""
    folder = tmp_path_factory.mktemp("alone")
    root = Path(__file__).parents[2]
    if not (root / "packaging/runtime").is_dir():
        pytest.skip("needs the source tree")
    for part in ("packaging/runtime", "projects/vfnet_yolof"):  # building leaves files behind
        shutil.copytree(root / part, folder / "tree" / part)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env/bin/python"
    source = str(folder / "tree/packaging/runtime")
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", source], capture_output=True, text=True
    )
    if "No matching distribution" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    return python


def few_suppressed(config: DictConfig) -> DictConfig:
    """A tiny one whose random scores lie so close that rounding decides which of two stays."""
    config = shrink(config)
    config.model.postprocessor.nms = {"_target_": HARD_NMS, "iou_threshold": 0.95}
    return config


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "smaller"),
    [("yolof/yolof_small_shapes.py", shrink_yolof), ("gfl/gfl_small_shapes.py", few_suppressed)],
    ids=["yolof", "gfl"],
)
def test_runtime_distribution_alone(
    name: str, smaller: Callable[[DictConfig], DictConfig], runtime_alone: Path, tmp_path: Path
) -> None:
    write_detector(tmp_path, smaller(load_config(name)))
    write_images(tmp_path, SIZES[:2])
    assert export(tmp_path, "onnx") == 0
    code = (
        "import importlib.util as u, sys\n"
        "assert not any(map(u.find_spec, ('torch', 'torchvision', 'detectron2')))\n"
        "from vfnet_yolof.runtime import ExportedDetector\n"
        "print(ExportedDetector(sys.argv[1])(sys.argv[2]).boxes.tolist())\n"
    )
    result = subprocess.run(
        [runtime_alone, "-c", code, tmp_path / "onnx" / "tiny.onnx", tmp_path / "1.png"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
    )
    assert result.returncode == 0, result.stderr
    native = Predictor(tmp_path / "tiny.pth", device="cpu", optimized=False)(tmp_path / "1.png")
    expected = native.pred_boxes.tensor
    assert len(expected)
    torch.testing.assert_close(torch.tensor(json.loads(result.stdout)), expected, atol=1e-2, rtol=0)


@pytest.mark.extra
@pytest.mark.slow
def test_openvino_predicts_the_same(folder: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    assert export(folder, "openvino", "--format", "openvino") == 0
    expect_same(folder / "openvino" / "tiny.xml", folder)


def test_torch_export_predicts_the_same(folder: Path) -> None:
    assert export(folder, "torch", "--format", "torch-export") == 0
    file = folder / "torch" / "tiny.pt2"
    with pytest.raises(ExportedFileError, match=r"reader runs code.*--trust-config"):
        Predictor(file)
    expect_same(file, folder, trust_config=True)
    detector = ExportedDetector(file, trusted=True)
    least = detector.metadata.least_side
    assert least == 17  # its only map has a stride of 16 px
    small = np.zeros((1, 3, least - 1, 2 * least), np.float32)
    with pytest.raises(ExportedFileError, match=rf"tiny.pt2: .* at least {least} px on each side"):
        detector.run(small)
    assert len(detector.run(np.zeros((1, 3, least, 2 * least), np.float32))) == 1
    with pytest.raises(AssertionError, match="Guard failed"):  # it is the program that needs it
        run_program(load_program(file)[0], small)


def test_candidates_become_detections_where_nms_is_outside(folder: Path) -> None:
    assert export(folder, "outside", "--nms", "outside") == 0
    expect_same(folder / "outside" / "tiny.onnx", folder)


def test_a_static_file_refuses_other_sizes(folder: Path) -> None:
    assert export(folder, "static", "--static", "64x85") == 0
    detector = ExportedDetector(folder / "static" / "tiny.onnx")
    assert len(detector(folder / "0.png").scores)  # 60 x 80 comes to 64 x 85
    assert detector.metadata.static_size == [64, 85] and detector.metadata.least_side is None
    with pytest.raises(ExportedFileError, match="takes images of 64x85 px only.*resized to 100x50"):
        detector(folder / "1.png")
    with pytest.raises(ExportedFileError, match=r"tiny.onnx: .* 64x85 px only, .* has 100x50 px"):
        Predictor(folder / "static" / "tiny.onnx")(folder / "1.png")


def test_soft_nms_is_left_to_the_predictor(folder: Path, capsys: Output) -> None:
    """Also in a file of one size; inside of the graph it has no form."""
    soft = "model.postprocessor.nms._target_=vfnet_yolof.layers.soft_nms.SoftNMS"
    changes = (soft, "model.postprocessor.score_thresh=0.2")
    assert export(folder, "soft", *changes) == 2
    assert "SoftNMS has no form inside of a graph: export with --nms outside" in (
        capsys.readouterr().err
    )
    assert export(folder, "soft", *changes, "--nms", "outside", "--static", "64x85") == 0
    exported = Predictor(folder / "soft" / "tiny.onnx")
    soft_nms = exported.model.metadata.soft_nms
    assert soft_nms is not None and soft_nms["method"] == "linear"
    native = Predictor(folder / "tiny.pth", overrides=changes, device="cpu", optimized=False)
    ours, theirs = exported(folder / "0.png"), native(folder / "0.png")
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=0.01, rtol=0)


def test_a_file_that_differs_is_not_kept(
    folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_SCORE_ERROR", -1.0)
    assert export(folder, "wrong", "--static", "64x96") == 2
    assert "differs from the detector, and is not kept" in capsys.readouterr().err
    assert not (folder / "wrong").exists()


def test_licence_of_published_weights_alone(tmp_path: Path) -> None:
    published = ROWS["vfnet/vfnet_r50_fpn_1x"].weights
    assert published is not None
    torch.save({"model": {}, "source": {"sha256": f"{published.sha256}00"}}, tmp_path / "a.pth")
    torch.save({"model": {}}, tmp_path / "b.pth")
    assert license_of(tmp_path / "a.pth") == "Apache-2.0"
    assert license_of(tmp_path / "b.pth") is None


def test_a_missing_opencv_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ModuleNotFoundError, match="pip install opencv-python-headless"):
        _resize(np.zeros((4, 4, 3), np.uint8), (8, 8), "opencv")


def test_an_interrupted_export_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vfnet_yolof.export.write.checked", interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(export(folder, "stopped", "--static", "64x96"))
    assert not (folder / "stopped").exists()


def test_boxes_of_random_weights_are_compared_by_the_size_of_the_image() -> None:
    found = check.Check((100, 320), 1, 10, 0.024, 0.0, 0)
    assert not found.good and "(0.01 allowed)" in str(found)
    assert found._replace(allowed=0.01 + check.MAX_RELATIVE_ERROR * 320).good


def test_files_that_are_refused(onnx_file: Path, tmp_path: Path, capsys: Output) -> None:
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(ExportedFileError, match="corrupt.onnx cannot be read"):
        ExportedDetector(corrupt)
    model = onnx.load(onnx_file)
    del model.metadata_props[:]
    foreign = tmp_path / "foreign.onnx"
    onnx.save(model, foreign)
    with pytest.raises(ExportedFileError, match="foreign.onnx was not made by `vfnet-yolof export"):
        Predictor(foreign)
    with pytest.raises(FileNotFoundError, match="no file"):
        ExportedDetector(tmp_path / "none.onnx")
    for file in (corrupt, foreign, tmp_path / "none.onnx"):
        assert main(["predict", str(file), "a.png", "--output", str(tmp_path / "out")]) == 2
    assert main(["export", str(onnx_file), "--output", str(tmp_path)]) == 2
    assert "exported already" in capsys.readouterr().err


@pytest.fixture
def copied(onnx_file: Path, tmp_path: Path) -> Path:
    """The file and its JSON, under another name."""
    shutil.copy(onnx_file.with_suffix(".json"), tmp_path / "renamed.json")
    return Path(shutil.copy(onnx_file, tmp_path / "renamed.onnx"))


def test_weights_that_changed_are_noticed(copied: Path, tmp_path: Path, capsys: Output) -> None:
    ExportedDetector(copied)
    content = bytearray(copied.read_bytes())
    largest = max(onnx.load(copied).graph.initializer, key=lambda x: len(x.raw_data)).raw_data
    content[content.index(largest) + 2] ^= 0x40
    copied.write_bytes(content)
    with pytest.raises(ExportedFileError, match=r"renamed\.onnx is damaged, or not the file"):
        ExportedDetector(copied)
    assert main(["deploy", str(copied), "--to", "triton", "--output", str(tmp_path / "out")]) == 2
    assert "is damaged" in capsys.readouterr().err
    copied.write_bytes(content[:5000])  # the runtime's own error would say less
    with pytest.raises(ExportedFileError, match=r"renamed\.onnx is damaged"):
        ExportedDetector(copied)
    copied.write_bytes(content)
    copied.with_suffix(".json").unlink()
    ExportedDetector(copied)  # nothing to compare with


def test_formats_of_one_name_keep_their_checksums(copied: Path) -> None:
    """They share the JSON file: the last that is written does not forget the others."""
    describe(copied.with_suffix(".xml"), open_graph(copied)[1], {".xml": "1", ".bin": "2"})
    assert set(noted_checksums(copied)) == {".onnx", ".xml", ".bin"}
    ExportedDetector(copied)


def test_an_export_that_ends_before_its_json_leaves_a_file_that_opens(
    onnx_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that it replaces had another checksum, which says nothing of the new one."""
    output = folder / "replaced"
    shutil.copytree(onnx_file.parent, output)

    def end(*_: object) -> None:
        raise RuntimeError("between the file and its JSON")

    with monkeypatch.context() as patched:
        patched.setattr("vfnet_yolof.export.write.describe", end)
        with pytest.raises(RuntimeError, match="between"):
            export(folder, "replaced", "--static", "64x96")
    assert ExportedDetector(output / "tiny.onnx").metadata.static_size == [64, 96]
    assert noted_checksums(output / "tiny.onnx") == {}


@pytest.mark.parametrize("content", ["[1]", "[" * 100_000, '{"images": []}', "{", '{"crc32": [1]}'])
def test_json_files_of_others(folder: Path, copied: Path, capsys: Output, content: str) -> None:
    """They say nothing of the file, and are not overwritten."""
    beside = copied.with_suffix(".json")
    beside.write_text(content)
    ExportedDetector(copied)
    output = folder / "others"
    output.mkdir(exist_ok=True)
    (output / "tiny.json").write_text(content)
    assert export(folder, "others") == 2
    assert "tiny.json is there already, and no export has made it" in capsys.readouterr().err
    assert (output / "tiny.json").read_text() == content


@pytest.mark.parametrize(("height", "width"), [(60, 80), (81, 60), (40, 200), (333, 500), (1, 900)])
def test_sizes_are_those_of_detectron2(height: int, width: int) -> None:
    from detectron2.data import transforms as T

    rule = {"kind": "shortest_edge", "short_edge_length": 320, "max_size": 533}
    transform = T.ResizeShortestEdge(320, 533).get_transform(np.zeros((height, width, 3), "uint8"))
    expected = max(1, transform.new_h), max(1, transform.new_w)
    assert resized(rule, height, width) == expected


def annotated(file: Path, folder: Path, output: Path, names: list[str] = NAMES) -> list[str]:
    """Data whose boxes are what the file detects best, as options of a command."""
    images = output / "val"
    images.mkdir()
    found, records = Predictor(file, score_thresh=0.0), []
    content = {"images": [], "categories": [], "annotations": records}
    content["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    for i in range(3):
        image = Image.open(folder / f"{i}.png")
        image.save(images / f"{i}.png")
        size = {"width": image.width, "height": image.height}
        content["images"].append({"id": i + 1, "file_name": f"{i}.png", **size})
        x1, y1, x2, y2 = found(image).pred_boxes.tensor[0].tolist()
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        records.append({"id": i + 1, "image_id": i + 1, "category_id": 1 + i % 3, **box})
    (output / "val.json").write_text(json.dumps(content))
    return ["--val-json", str(output / "val.json"), "--val-images", str(images)]


def test_evaluate_takes_the_file(
    onnx_file: Path,
    folder: Path,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same AP as the checkpoint has, also where candidates are all that the file gives."""
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))
    data = annotated(onnx_file, folder, tmp_path)
    assert export(folder, "candidates", "--nms", "outside") == 0
    outside = folder / "candidates" / "tiny.onnx"
    results = []
    both = tmp_path / "both"  # the checkpoint with its file beside it
    both.mkdir()
    for file in (folder / "tiny.pth", onnx_file):
        shutil.copy(file, both)
    onnxruntime = ["--runtime", "onnxruntime"]
    models = [(folder / "tiny.pth", []), (onnx_file, []), (outside, [])]
    for number, (model, options) in enumerate([*models, (both / "tiny.pth", onnxruntime)]):
        output = tmp_path / str(number)
        command = ["evaluate", str(model), *data, "--output", str(output), "--device", "cpu"]
        assert main([*command, *options]) == 0
        results.append(json.loads((output / "metrics.json").read_text().splitlines()[-1]))
    assert results[0]["bbox/AP"] > 0
    assert [x.get("runtime") for x in results] == [None, None, None, "onnxruntime"]
    assert not (tmp_path / "cache").exists()  # nothing was exported
    assert main([*command, *onnxruntime, "--num-processes", "2"]) == 2
    assert "in one process: leave out" in capsys.readouterr().err
    for exported in results[1:]:
        assert exported["bbox/AP"] == pytest.approx(results[0]["bbox/AP"], abs=1e-3)
    command = ["predict", str(outside), str(folder / "0.png"), "--output", str(tmp_path / "out")]
    assert main([*command, "--json", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())


def test_evaluating_on_other_classes_is_refused(
    onnx_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    data = annotated(onnx_file, folder, tmp_path, ["ant", "bee", "dog"])
    output = tmp_path / "out"
    command = ["evaluate", str(onnx_file), *data, "--output", str(output), "--device", "cpu"]
    capsys.readouterr()
    assert main(command) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "cat" in line and "dog" in line


def test_what_is_missing_is_named(
    folder: Path, onnx_file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(folder, "missing") == 2
    assert capsys.readouterr().err.endswith(
        "error: onnxruntime is not installed: pip install onnxruntime\n"
    )
    with pytest.raises(ModuleNotFoundError, match="tiny.onnx needs onnxruntime: pip install"):
        ExportedDetector(onnx_file)
