"""What ``deploy`` writes of an exported file, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from detecting import CLASS_NAMES as NAMES
from detecting import write_detector, write_images
from PIL import Image
from tiny import shrink_yolof
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.runtime import ExportedDetector, Found, Metadata

pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
onnx = pytest.importorskip("onnx", reason="exporting needs the extra [export]: onnx")
pytest.importorskip("onnxruntime", reason="exporting needs the extra [export]: onnxruntime")

from vfnet_yolof.export.deploy import (  # noqa: E402
    RUNTIME_FILES,
    OnnxFile,
    Tensor,
    triton_config,
    trtexec_script,
)

SERVICE = Path(__file__).parents[2] / "docs" / "examples" / "http_service.py"
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny.onnx`` of a tiny YOLOF, and images."""
    folder = tmp_path_factory.mktemp("deploy")
    write_detector(folder, shrink_yolof(load_config("yolof/yolof_small_shapes.py")))
    write_images(folder / "images")
    assert main(["export", str(folder / "tiny.pth"), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> OnnxFile:
    return OnnxFile.open(folder / "tiny.onnx")


@pytest.fixture
def npm(tmp_path: Path) -> Path:
    """A folder with files called like those of npm's onnxruntime-web."""
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder


def deploy(folder: Path, to: str, output: Path, *options: str) -> int:
    return main(
        ["deploy", str(folder / "tiny.onnx"), "--to", to, "--output", str(output), *options]
    )


def with_metadata(file: OnnxFile, **changes: Any) -> OnnxFile:
    return dataclasses.replace(file, metadata=dataclasses.replace(file.metadata, **changes))


def save_with_metadata(folder: Path, target: Path, **changes: Any) -> None:
    """``tiny.onnx`` once more, whose metadata say something else."""
    model = onnx.load(folder / "tiny.onnx")
    (entry,) = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    onnx.save(model, target)


def test_inputs_and_outputs_as_the_graph_has_them(file: OnnxFile) -> None:
    assert file.inputs == (Tensor("images", "TYPE_FP32", (3, -1, -1), True),)
    assert file.outputs == (
        Tensor("boxes", "TYPE_FP32", (100, 4), True),
        Tensor("scores", "TYPE_FP32", (100,), True),
        Tensor("classes", "TYPE_INT64", (100,), True),
        Tensor("count", "TYPE_INT64", (), True),
    )


def test_a_model_of_tritons_repository(folder: Path, tmp_path: Path, capsys: Output) -> None:
    assert deploy(folder, "triton", tmp_path, "--max-batch", "4") == 0
    model = tmp_path / "tiny"
    assert f"tritonserver --model-repository={tmp_path}" in capsys.readouterr().out
    assert sorted(str(x.relative_to(model)) for x in model.rglob("*") if x.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "metadata.json",
    ]
    text = (model / "config.pbtxt").read_text()
    assert 'name: "tiny"' in text and "max_batch_size: 4" in text
    # One number for each image has no dimension in the graph; Triton's tensors have one.
    assert 'name: "count"\n  data_type: TYPE_INT64\n  dims: [ 1 ]\n  reshape { shape: [ ] }' in text
    assert (model / "1" / "model.onnx").read_bytes() == (folder / "tiny.onnx").read_bytes()
    names = Metadata.from_json((model / "metadata.json").read_text(), "").class_names
    assert names == NAMES


@pytest.mark.extra
def test_triton_reads_its_configuration(file: OnnxFile) -> None:
    """By Triton's own schema, with protobuf's parser of texts."""
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="pip install tritonclient[grpc]"
    )
    from google.protobuf import text_format

    config = text_format.Parse(triton_config(file), schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 8)
    (images,) = config.input
    assert (images.name, images.data_type, list(images.dims)) == (
        "images",
        schema.TYPE_FP32,
        [3, -1, -1],
    )
    outputs = {x.name: (x.data_type, list(x.dims)) for x in config.output}
    assert outputs == {
        "boxes": (schema.TYPE_FP32, [100, 4]),
        "scores": (schema.TYPE_FP32, [100]),
        "classes": (schema.TYPE_INT64, [100]),
        "count": (schema.TYPE_INT64, [1]),
    }
    assert config.output[3].HasField("reshape") and not config.output[3].reshape.shape
    assert config.HasField("dynamic_batching")


def test_tensorrts_line(folder: Path, tmp_path: Path, capsys: Output) -> None:
    """Runs where something called trtexec takes the place of NVIDIA's."""
    assert deploy(folder, "tensorrt", tmp_path / "engine", "--max-batch", "4") == 0
    assert "not run here" in capsys.readouterr().out
    fake = tmp_path / "bin" / "trtexec"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nfor x in "$@"; do echo "$x"; done\n')
    fake.chmod(0o755)
    script = tmp_path / "engine" / "build_engine.sh"
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [str(script)], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [
        "--onnx=model.onnx",
        "--saveEngine=model.plan",
        "--stronglyTyped",
        "--minShapes=images:1x3x32x32",
        "--optShapes=images:1x3x64x85",
        "--maxShapes=images:4x3x100x100",
    ]
    assert (script.parent / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("changes", "largest", "expected"),
    [
        ({"static_size": [48, 64]}, None, ["48x64", "48x64", "48x64"]),
        (
            {"resize": {"kind": "fixed", "height": 40, "width": 60}},
            None,
            ["40x60", "40x60", "40x60"],
        ),
        ({"resize": {"kind": "none"}}, (90, 200), ["32x32", "90x200", "90x200"]),
        ({}, (50, 70), ["32x32", "50x70", "50x70"]),
    ],
)
def test_sizes_of_an_engine(
    file: OnnxFile, changes: dict[str, Any], largest: tuple[int, int] | None, expected: list[str]
) -> None:
    text = trtexec_script(with_metadata(file, **changes), largest=largest, max_batch=1)
    found = [word.partition("images:1x3x")[2] for word in text.split() if "images:" in word]
    assert found == expected


def test_a_page(folder: Path, npm: Path, tmp_path: Path, capsys: Output) -> None:
    for named in (npm, npm.parent):  # the folder with the files, or the package
        output = tmp_path / "pages" / named.name
        assert deploy(folder, "browser", output, "--runtime-files", str(named)) == 0
        found = sorted(str(x.relative_to(output)) for x in output.rglob("*") if x.is_file())
        assert found == sorted(
            ["detect.js", "index.html", "metadata.json", "model.onnx"]
            + [f"ort/{name}" for name in RUNTIME_FILES]
        )
    assert "http.server" in capsys.readouterr().out
    for name in ("index.html", "detect.js"):
        assert "://" not in (output / name).read_text()  # no address of another server


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("browser",), "--to browser needs onnxruntime-web: npm pack onnxruntime-web"),
        (("triton", "--runtime-files", "x"), "--runtime-files is for --to browser"),
        (("triton", "--largest", "48x64"), "--largest is for --to tensorrt"),
        (("browser", "--runtime-files", "x", "--max-batch", "2"), "--max-batch is for"),
        (("browser", "--runtime-files", "nowhere"), "nowhere has no ort.wasm.min.js"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path, tmp_path: Path, options: tuple[str, ...], complaint: str, capsys: Output
) -> None:
    to, *rest = options
    assert deploy(folder, to, tmp_path / "out", *rest) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "changes", "complaint"),
    [
        ("tensorrt", {"precision": "int8"}, "export with --precision fp16"),
        ("tensorrt", {"resize": {"kind": "none"}}, "--largest HxW"),
        ("browser", {"nms": "outside"}, "--nms inside"),
        ("triton", {"format": 7}, "metadata of format 7"),
    ],
)
def test_files_that_do_not_fit(
    folder: Path,
    npm: Path,
    tmp_path: Path,
    to: str,
    changes: dict[str, Any],
    complaint: str,
    capsys: Output,
) -> None:
    save_with_metadata(folder, tmp_path / "tiny.onnx", **changes)
    options = ["--runtime-files", str(npm)] if to == "browser" else []
    assert deploy(tmp_path, to, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and str(tmp_path / "tiny.onnx") in error
    assert not (tmp_path / "out").exists()


def test_files_of_others(tmp_path: Path, capsys: Output) -> None:
    damaged, checkpoint = tmp_path / "damaged.onnx", tmp_path / "a.pth"
    damaged.write_bytes(b"nothing")
    checkpoint.touch()
    for path, complaint in (
        (damaged, "cannot be read"),
        (checkpoint, "no ONNX file"),
        (tmp_path / "absent.onnx", "There is no file"),
    ):
        assert main(["deploy", str(path), "--to", "triton", "--output", str(tmp_path / "o")]) == 2
        error = capsys.readouterr().err
        assert complaint in error and str(path) in error


@pytest.fixture
def service(folder: Path) -> Iterator[str]:
    """Address of the example's service."""
    command = [sys.executable, str(SERVICE), str(folder / "tiny.onnx"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def test_the_service_of_the_example(folder: Path, service: str) -> None:
    image = folder / "images" / "0.png"
    with urlopen(Request(service, data=image.read_bytes(), method="POST"), timeout=60) as answer:
        found = json.load(answer)
    expected = ExportedDetector(folder / "tiny.onnx")(image)
    assert [x["class"] for x in found] == [NAMES[i] for i in expected.classes]
    np.testing.assert_allclose([x["score"] for x in found], expected.scores, atol=1e-6)
    np.testing.assert_allclose([x["box"] for x in found], expected.boxes, atol=1e-3)
    with pytest.raises(OSError, match="400"):
        urlopen(Request(service, data=b"no image", method="POST"), timeout=60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address under which ``tmp_path`` is served."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def onnxruntime_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of npm's package, named by the environment or fetched by npm."""
    if named := os.environ.get("ONNXRUNTIME_WEB"):
        return Path(named)
    if shutil.which("npm") is None:
        pytest.skip("needs npm, or ONNXRUNTIME_WEB=package/dist of npm pack onnxruntime-web")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", "onnxruntime-web"]
    packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode:
        pytest.skip(f"npm could not fetch onnxruntime-web: {packed.stderr.strip()[-200:]}")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "dist"


def partners(found: list[dict[str, Any]], expected: Found, box: float, score: float) -> int:
    """How many expected detections the page has, too, but for so many px and that of the score."""
    rows = zip(expected.boxes, expected.scores, expected.classes, strict=True)
    return sum(
        any(
            one["name"] == NAMES[number]
            and np.abs(np.array(one["box"]) - place).max() <= box
            and abs(one["score"] - value) <= score
            for one in found
        )
        for place, value, number in rows
    )


@pytest.mark.extra
@pytest.mark.parametrize("interpolation", ["pil", "opencv"])
def test_the_page_detects_what_the_file_detects(
    folder: Path,
    tmp_path: Path,
    served: str,
    page: Any,
    onnxruntime_web: Path,
    interpolation: str,
) -> None:
    save_with_metadata(folder, tmp_path / "tiny.onnx", interpolation=interpolation)
    files = ["--runtime-files", str(onnxruntime_web)]
    assert deploy(tmp_path, "browser", tmp_path / "page", *files) == 0
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served}/page/index.html")
    page.wait_for_selector("#image:enabled", timeout=120_000)
    detector = ExportedDetector(tmp_path / "tiny.onnx")

    def both(image: Path) -> tuple[list[dict[str, Any]], Found]:
        page.evaluate("say('')")
        page.set_input_files("#image", image)
        page.wait_for_selector("#status:has-text('detections in')", timeout=120_000)
        found, expected = page.evaluate("window.found"), detector(image)
        assert page.locator("#found tbody tr").count() == len(found)
        assert len(expected.scores) > 10
        return found, expected

    found, expected = both(folder / "images" / "3.png")  # has the size that it is resized to
    assert len(found) == len(expected.scores)
    assert partners(found, expected, 0.01, 1e-3) == len(found)
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((200, 150)).save(tmp_path / "large.png")
    for image in (folder / "images" / "0.png", tmp_path / "large.png"):  # enlarged, made smaller
        found, expected = both(image)
        assert partners(found, expected, 0.1, 0.02) >= 0.95 * len(expected.scores)
        assert abs(len(found) - len(expected.scores)) <= 0.05 * len(found)
    assert asked and all(url.startswith((served, "blob:", "data:")) for url in asked)
    page.set_input_files("#image", tmp_path / "tiny.onnx")
    page.wait_for_selector("#status.failed")
    assert "No detections" in page.inner_text("#status")
