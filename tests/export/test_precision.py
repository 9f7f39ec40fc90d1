"""Files of fewer bits: which parts lose them, what is measured, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from detecting import CLASS_NAMES as NAMES
from detecting import write_detector, write_images
from omegaconf import DictConfig
from PIL import Image
from tiny import shrink, shrink_yolof
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.inference.predictor import Predictor
from vfnet_yolof.runtime import ExportedDetector, Metadata, processor

pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
onnx = pytest.importorskip("onnx", reason="exporting needs the extra [export]: onnx")
ort = pytest.importorskip("onnxruntime", reason="exporting needs the extra [export]: onnxruntime")

from onnx import numpy_helper  # noqa: E402
from vfnet_yolof.export import calibration, precision  # noqa: E402
from vfnet_yolof.export.calibration import Calibration, CalibrationError  # noqa: E402
from vfnet_yolof.export.check import CheckFailed  # noqa: E402
from vfnet_yolof.export.half import half  # noqa: E402
from vfnet_yolof.export.int8 import Ranges  # noqa: E402
from vfnet_yolof.export.onnx_file import save_onnx  # noqa: E402
from vfnet_yolof.export.parts import Parts  # noqa: E402
from vfnet_yolof.export.precision import Reduction, largest_within  # noqa: E402

OUTPUTS = {"model.head.cls_logits", "model.head.deltas", "model.head.objectness"}
Output = pytest.CaptureFixture[str]


def checkpoint(folder: Path, config: DictConfig) -> None:
    """Random weights with detections in every image, and four images with annotations."""
    write_detector(folder, config)
    write_images(folder / "images")
    write_json(folder)


def write_json(folder: Path) -> None:
    """``val.json``: what the detector finds best in each image is the ground truth."""
    predictor = Predictor(folder / "tiny.pth", device="cpu", optimized=False, score_thresh=0.0)
    images, records = [], []
    for i, file in enumerate(sorted((folder / "images").glob("*.png"))):
        with Image.open(file) as image:
            size = {"width": image.width, "height": image.height}
        images.append({"id": i, "file_name": file.name, **size})
        found = predictor(file)
        for j in range(3):
            x1, y1, x2, y2 = found.pred_boxes.tensor[j].tolist()
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            number = {"id": len(records), "image_id": i, "iscrowd": 0}
            records.append({**number, "category_id": int(found.pred_classes[j]) + 1, **box})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": records, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precision")
    checkpoint(folder, shrink_yolof(load_config("yolof/yolof_small_shapes.py")))
    return folder


def export(folder: Path, output: Path, *options: str) -> int:
    return main(["export", str(folder / "tiny.pth"), "--output", str(output), *options])


def convolutions(model: onnx.ModelProto) -> dict[str, bool]:
    """Modules of all convolutions of a graph, and whether each has weights of 8 bits."""
    weights = {x.name for x in model.graph.initializer}
    made_of = {x.output[0]: x.input[0] for x in model.graph.node if len(x.output) == 1 and x.input}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            name = node.input[1] if node.input[1] in weights else made_of[node.input[1]]
            module = name.removesuffix("_quantized").removesuffix(".weight")
            found[module] = name.endswith("_quantized")
    return found


class Made(NamedTuple):
    """An int8 file measured on annotated images, what was printed, and what it was made of."""

    file: Path
    said: str
    model: torch.nn.Module
    graph: onnx.ModelProto


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    kept: list[Any] = []

    def reduced(*args: Any, **options: Any) -> Any:
        kept.extend(args[:2])
        return precision.reduced(*args, **options)

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setattr("vfnet_yolof.export.write.reduced", reduced)
        source = str(folder / "val.json")
        assert export(folder, folder / "int8", "--precision", "int8", "--calibration", source) == 0
    return Made(folder / "int8" / "tiny.onnx", said.getvalue(), *kept)


def test_int8_everywhere_but_in_the_heads_outputs(made: Made) -> None:
    model = onnx.load(made.file)
    found = convolutions(model)
    assert {name for name, lowered in found.items() if not lowered} == OUTPUTS
    assert len(found) > 20
    weights = {x.name: x for x in model.graph.initializer}
    tower = weights["model.head.reg_tower.0.conv.weight_quantized"]
    assert tower.data_type == onnx.TensorProto.INT8
    scale = numpy_helper.to_array(weights["model.head.reg_tower.0.conv.weight_scale"])
    assert scale.shape == (tower.dims[0],)  # one for each channel


def test_int8_does_not_turn_to_floating_point_in_between(made: Made) -> None:
    """A ReLU is the least value of what is before it, and a shape needs no numbers at all."""
    nodes = onnx.load(made.file).graph.node
    turned = {x.output[0] for x in nodes if x.op_type == "DequantizeLinear"}
    assert len(turned) > 40
    exact = {x.op_type for x in nodes if turned.intersection(x.input)}
    assert not exact & {"Relu", "Shape"}
    before = {x.op_type for x in made.graph.graph.node}
    assert {"Relu", "Shape"} <= before


def test_int8_has_no_weights_that_nothing_reads(made: Made) -> None:
    """onnxruntime would warn of each."""
    graph = onnx.load(made.file).graph
    read = {name for node in graph.node for name in node.input}
    assert [x.name for x in graph.initializer if x.name not in read] == []


def test_int8_says_what_it_lost(made: Made, folder: Path) -> None:
    file, said = made.file, made.said
    assert "calibrates on 4 of 4 images" in said
    assert "int8, all parts: AP " in said
    assert "AP was not measured" not in said and ", of the fp32 file " in said
    metadata = Metadata.from_json(file.with_suffix(".json").read_text(), file)
    assert onnx.load(file).metadata_props[0].value == metadata.to_json()
    assert metadata.precision == "int8" and metadata.reduced is not None
    assert metadata.reduced["images"] == 4 and metadata.reduced["method"] == "mean"
    assert {"neck", "res3", "head.cls_tower"} <= set(metadata.reduced["parts"])
    assert metadata.reduced["exact"] == ["outputs of the head", "offsets", "decoding", "NMS"]
    found = Predictor(file)(folder / "images" / "0.png")
    assert len(found)


def test_files_do_not_tell_of_the_machine(made: Made) -> None:
    assert str(Path(__file__).parents[2]).encode() not in made.file.read_bytes()


def test_chosen_parts_only(made: Made) -> None:
    images = [np.full((3, 64, 64), 100.0, np.float32), np.zeros((3, 40, 90), np.float32)]
    ranges = Ranges(made.graph, images, "minmax")
    found = convolutions(ranges.quantized(["neck"]))
    neck = {x for x in found if x.startswith("model.backbone") and "bottom_up" not in x}
    assert neck and {name for name, lowered in found.items() if lowered} == neck
    with pytest.raises(ValueError, match="method 'least' is none of mean, minmax"):
        Ranges(made.graph, images, "least")


def test_a_bias_of_several_convolutions_is_copied_under_a_name_of_its_own(made: Made) -> None:
    """onnxruntime numbers its copies, and GFL's group norms had tensors of those names."""
    graph = onnx.ModelProto()
    graph.CopyFrom(made.graph)
    values = {x.name: x for x in graph.graph.initializer}
    convs = [x for x in graph.graph.node if x.op_type == "Conv" and len(x.input) > 2]
    length = values[convs[0].input[2]].dims[0]
    shared = [x for x in convs if values[x.input[2]].dims[0] == length]
    assert len(shared) > 1
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(length, np.float32), "zeros"))
    for conv in shared:
        conv.input[2] = "zeros"
    other = next(x for x in graph.graph.node if x.op_type == "Shape").output[0]
    for info in graph.graph.value_info:
        info.name = "zeros0" if info.name == other else info.name
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = "zeros0" if name == other else name
    ranges = Ranges(graph, [np.full((3, 64, 64), 100.0, np.float32)], "minmax")
    made_by = Counter(
        x for node in ranges.quantized(ranges.parts.nodes).graph.node for x in node.output
    )
    assert made_by["zeros0"] == 1
    assert max(made_by.values()) == 1


def test_half_keeps_positions_in_single_precision(made: Made, tmp_path: Path) -> None:
    proto, metadata = made.graph, made.file.with_suffix(".json").read_text()
    lowered = half(proto, Parts(proto))
    weights = {x.name: x.data_type for x in lowered.graph.initializer}
    halves = {name for name, kind in weights.items() if kind == onnx.TensorProto.FLOAT16}
    assert "model.head.reg_tower.0.conv.weight_half" in halves
    assert all(name.startswith("model.") for name in halves)  # no anchors, thresholds or sizes
    assert all(weights[f"{name}.weight"] == onnx.TensorProto.FLOAT for name in OUTPUTS)
    assert {x.type.tensor_type.elem_type for x in lowered.graph.input} == {onnx.TensorProto.FLOAT}
    casts = sum(x.op_type == "Cast" for x in lowered.graph.node)
    assert casts - sum(x.op_type == "Cast" for x in proto.graph.node) <= 4  # in, to three outputs
    save_onnx(lowered, tmp_path / "half.onnx", metadata)
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    image = np.random.default_rng(0).integers(0, 256, (3, 96, 64)).astype(np.float32)
    count = precision.compared(made.model, tmp_path / "half.onnx", [image], iou=0.9, score=0.3)
    assert count[1] > 20 and count[2] >= 0.95 * count[1]


def test_options_that_do_not_go_together(folder: Path, tmp_path: Path, capsys: Output) -> None:
    refused = {
        ("--precision", "int8"): "needs images to measure ranges on: --calibration",
        ("--precision", "fp16", "--calibration", str(folder / "images")): "for --precision int8",
        ("--max-drop", "0.5"): "--max-drop are for --precision int8",
        ("--calibration-method", "mean"): "is for --precision int8 with --format onnx",
        ("--data", str(folder)): "are for --precision int8",
        ("--precision", "fp16", "--format", "torch-export"): "for ONNX and OpenVINO, not for .pt2",
        (
            *("--precision", "int8", "--calibration", str(folder / "images")),
            *("--max-drop", "0.5"),
        ): "--max-drop is an AP, which takes annotated data",
        (
            *("--precision", "int8", "--calibration", str(folder / "val.json")),
            *("--max-drop", "nan"),
        ): "--max-drop must be a number of at least 0, got nan",
    }
    for options, message in refused.items():
        assert export(folder, tmp_path / "out", *options) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and len(error.splitlines()) == 1, error
    assert not (tmp_path / "out").exists()


def test_calibration_that_cannot_be_used(folder: Path, tmp_path: Path, capsys: Output) -> None:
    with pytest.raises(CalibrationError, match="folder .* has no images"):
        Calibration.of(tmp_path)
    with pytest.raises(CalibrationError, match=r"neither a folder nor a file .*none\.json"):
        Calibration.of(tmp_path / "none.json")
    with pytest.raises(CalibrationError, match="neither a folder of images nor an annotation file"):
        Calibration.of(folder / "images" / "0.png")
    moved = tmp_path / "val.json"
    moved.write_text((folder / "val.json").read_text())
    with pytest.raises(CalibrationError, match=r"4 of 4 images of .* are missing, the first is .*"):
        Calibration.of(moved)
    images = tmp_path / "broken"
    images.mkdir()
    (images / "a.png").write_bytes((folder / "images" / "0.png").read_bytes()[:200])
    assert (
        export(
            folder, tmp_path / "out", "--precision", "int8", "--calibration", str(images),
        )
        == 2
    )  # fmt: skip
    assert "a.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_images_are_drawn_each_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MAX_IMAGES", 2)
    first, again = Calibration.of(folder / "images"), Calibration.of(folder / "images")
    assert first == again and len(first.files) == 2 and first.files == sorted(first.files)
    assert str(first) == "2 of 4 images, drawn with seed 0"
    assert Calibration.of(folder / "val.json").files == first.files
    assert Calibration.of(folder / "val.json").annotated and not first.annotated


@pytest.mark.parametrize(
    ("max_drop", "expected", "steps"),
    [
        (1.0, "abc", 1),
        (0.4, "ac", 5),  # all, three alone, all but b
        (0.3, "c", 6),  # c with b, which was left out in vain, loses too much, too
    ],
)
def test_search_takes_the_largest_part(max_drop: float, expected: str, steps: int) -> None:
    losses = {"a": 0.35, "b": 0.6, "c": 0.05}
    seen: list[str] = []

    def loss(parts: Sequence[str]) -> float:
        if "".join(parts) not in seen:
            seen.append("".join(parts))
        return sum(losses[part] for part in parts)

    assert largest_within("abc", loss, max_drop) == list(expected)
    assert seen[0] == "abc" and len(seen) == steps


def test_search_takes_back_what_was_left_out_in_vain() -> None:
    """b spoils it, though c alone loses more."""
    alone = {"a": 0.1, "b": 0.2, "c": 0.3}

    def loss(parts: Sequence[str]) -> float:
        return 1.0 if "b" in parts and len(parts) > 1 else max(alone[part] for part in parts)

    assert largest_within("abc", loss, 0.5) == ["a", "c"]
    with pytest.raises(CheckFailed, match=r"within --max-drop 0\.05: the best .* loses 0\.10"):
        largest_within("abc", loss, 0.05)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n", True),
        ("flags : fpu avx_vnni", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("flags : fpu sse4_2 avx2\n", False),
        ("cpu : something else\n", None),
    ],
)
def test_processors(
    text: str, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    assert processor.has_int8_instructions() is expected
    warning = processor.int8_warning()
    assert (warning is None) == (expected is True)
    assert warning is None or len(warning.splitlines()) == 1
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    assert processor.has_int8_instructions() is None
    monkeypatch.setattr(processor.platform, "system", lambda: "Plan 9")
    assert "does not tell" in str(processor.int8_warning())


def test_opening_8_bits_on_another_processor_warns_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fp32 file itself, called one of 8 bits, as it is what the metadata say that counts."""
    metadata = json.loads(made.file.with_suffix(".json").read_text())
    for name in ("fp32", "int8"):
        text = json.dumps({**metadata, "precision": name})
        save_onnx(onnx.load(made.file), tmp_path / f"{name}.onnx", text)
    (tmp_path / "cpuinfo").write_text("flags : fpu sse4_2 avx2\n")
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    processor.warn_of_int8.cache_clear()
    ExportedDetector(tmp_path / "fp32.onnx")
    assert not caplog.records
    for _ in range(2):
        ExportedDetector(tmp_path / "int8.onnx")
    assert [x.getMessage() for x in caplog.records] == [processor.int8_warning()]
    processor.warn_of_int8.cache_clear()


def test_a_file_far_from_the_detector_is_not_good() -> None:
    found = precision.Agreement("int8", 5, 100, 40, 3, 0.5, 0.3, None, 0.5)
    assert not found.good and found._replace(needed=0.0).good
    assert found._replace(matched=60).good
    assert "AP was not measured" in str(found)
    assert "AP 39.50, of the fp32 file 40.00: -0.50" in str(found._replace(ap=(40.0, 39.5)))


def test_reductions_need_what_they_use() -> None:
    with pytest.raises(ValueError, match="precision 'int4' is none of fp32, fp16, int8"):
        Reduction("int4")


@pytest.fixture
def _random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their scores lie so close that fewer bits change which ones are the best."""
    for name in precision.NEEDED:
        monkeypatch.setitem(precision.NEEDED, name, 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("_random_weights")
def test_vfnets_star_offsets_stay_exact(tmp_path: Path, capsys: Output) -> None:
    checkpoint(tmp_path, shrink(load_config("vfnet/vfnet_small_shapes.py")))
    source = ("--precision", "int8", "--calibration", str(tmp_path / "val.json"))
    assert export(tmp_path, tmp_path / "int8", *source, "--max-drop", "100") == 0
    found = convolutions(onnx.load(tmp_path / "int8" / "tiny.onnx"))
    exact = {name for name, lowered in found.items() if not lowered}
    assert exact == {f"model.head.{name}" for name in ("cls_logits", "reg_init", "reg_refine")}
    # Weights of the star convolutions are reshaped for GridSample, and have lost their names.
    assert sum(not name.startswith("model.") for name in found) == 2
    said = capsys.readouterr().out
    assert "fp32: AP" in said and "int8, all parts: AP" in said


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.usefixtures("_random_weights")
def test_openvino_in_8_and_16_bits(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    pytest.importorskip("nncf", reason="needs the extra [int8]: nncf")
    import openvino

    options = ("--format", "openvino", "--precision", "int8", "--calibration")
    assert export(folder, tmp_path, *options, str(folder / "images")) == 0
    model = openvino.Core().read_model(tmp_path / "tiny.xml")
    exact = [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() == "Convolution"
        and op.input_value(1).get_node().get_type_name() == "Constant"  # else int8, and a scale
    ]
    assert len(exact) == 3
    assert Predictor(tmp_path / "tiny.xml").model.metadata.reduced["method"] == "nncf"
    size = (tmp_path / "tiny.bin").stat().st_size
    assert export(folder, tmp_path, "--format", "openvino", "--precision", "fp16") == 0
    assert len(Predictor(tmp_path / "tiny.xml")(folder / "images" / "0.png"))
    assert (tmp_path / "tiny.bin").stat().st_size > size
