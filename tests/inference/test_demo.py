"""The demo: what goes in comes out drawn and listed, and what is broken is named."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import demo as tool
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from PIL import Image
from vfnet_yolof import Predictor
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.inference.demo import (
    InputError,
    category_ids,
    collect_inputs,
    run_on_camera,
    run_on_files,
)

CONFIG = "vfnet/vfnet_small_shapes.py"
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    torch.nn.init.zeros_(model.head.cls_logits.bias)  # so that every picture has detections
    path = tmp_path_factory.mktemp("weights") / "vfnet.pth"
    torch.save({"model": model.state_dict(), "class_names": NAMES}, path)
    return path


@pytest.fixture(scope="module")
def predictor(weights) -> Predictor:
    return Predictor(CONFIG, weights, device="cpu", score_thresh=0.1, batch_size=3)


def write_picture(path: Path, height: int = 64, width: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def write_video(path: Path, frames: int, fps: float = 12.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (96, 64))
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return path


def read_video(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Number of frames, frames per second, (width, height)."""
    capture = cv2.VideoCapture(str(path))
    fps, count, size = capture.get(cv2.CAP_PROP_FPS), 0, (0, 0)
    while True:
        success, frame = capture.read()
        if not success:
            return count, fps, size
        count, size = count + 1, (frame.shape[1], frame.shape[0])


def test_folder_with_a_broken_picture(weights, tmp_path: Path, capsys):
    folder, output = tmp_path / "pictures", tmp_path / "out"
    write_picture(folder / "a.png")
    write_picture(folder / "deep" / "b.jpg", 64, 96)
    broken = folder / "broken.jpg"
    broken.write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an input")
    listing = tmp_path / "lists" / "found.json"

    code = tool.main(
        ["--config-file", CONFIG, "--weights", str(weights), "--device", "cpu"]
        + ["--input", str(folder), "--output", str(output), "--json", str(listing)]
        + ["--score-threshold", "0.1"]
    )

    captured = capsys.readouterr()
    assert code == 1
    assert f"failed: {broken}: " in captured.err
    assert f"drawn results: {output} (2 files)" in captured.out
    assert f"detections: {listing}" in captured.out
    files = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    assert files == ["a.png", "deep/b.jpg"]
    assert Image.open(output / "deep" / "b.jpg").size == (8 * 96, 8 * 64)  # enlarged
    original, drawn = Image.open(folder / "a.png"), Image.open(output / "a.png")
    plain = original.resize(drawn.size, Image.Resampling.BICUBIC)
    assert (np.asarray(plain) != np.asarray(drawn)).any()

    records = json.loads(listing.read_text())
    assert {r["file_name"] for r in records} == {str(folder / "a.png"), str(folder / "deep/b.jpg")}
    for record in records:
        assert record["category_name"] == NAMES[record["category_id"]]
        assert record["score"] >= 0.1
        x, y, width, height = record["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= 96.01
        assert y + height <= 64.01


@pytest.fixture
def resizing(weights) -> Predictor:
    """As configs for own pictures have it: shorter side 320, longer at most 533."""
    overrides = [
        "dataloader.test.mapper.augmentations=[{_target_:detectron2.data.transforms."
        "ResizeShortestEdge,short_edge_length:320,max_size:533}]"
    ]
    return Predictor(CONFIG, weights, device="cpu", batch_size=3, overrides=overrides)


@pytest.mark.parametrize("size", [(1, 1067), (2001, 1), (2, 3000), (1, 10_000)])
def test_thin_pictures_are_pictures(resizing: Predictor, size: tuple[int, int], tmp_path: Path):
    write_picture(tmp_path / "in" / "a.png", 48, 64)
    write_picture(tmp_path / "in" / "thin.png", *size)
    write_picture(tmp_path / "in" / "z.png", 48, 64)
    result = run_on_files(resizing, collect_inputs([tmp_path / "in"]), tmp_path / "out")
    assert result.failures == []
    assert result.num_images == 3
    assert Image.open(tmp_path / "out" / "thin.png").size == size[::-1]


class TestNoInputEndsTheRun:
    """Whatever fails on one picture or video is listed by name, and the others are done."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for number in range(7):
            write_picture(tmp_path / "in" / f"{number}.png", 64, 64 + 32 * (number == 4))
        return tmp_path / "in"

    def test_the_model(self, predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch):
        forward = predictor.model.forward

        def fail_on_wide(inputs):
            if any(x["image"].shape[-1] > 64 for x in inputs):
                raise RuntimeError("cells are missing\nsecond line")
            return forward(inputs)

        monkeypatch.setattr(predictor.model, "forward", fail_on_wide)
        result = run_on_files(predictor, collect_inputs([folder]), tmp_path / "out")
        assert result.failures == [(str(folder / "4.png"), "RuntimeError: cells are missing")]
        assert [p.name for p in result.written] == [f"{i}.png" for i in (0, 1, 2, 3, 5, 6)]
        assert result.num_images == 6
        assert {r["file_name"] for r in result.records} == {
            str(folder / p.name) for p in result.written
        }

    def test_drawing(self, predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch):
        def fail_on_wide(image, *_, **__):
            if image.shape[1] > 64:
                raise ValueError("cannot be drawn")
            return image

        monkeypatch.setattr("vfnet_yolof.inference.predictor.draw_instances", fail_on_wide)
        result = run_on_files(predictor, collect_inputs([folder]), tmp_path / "out")
        assert result.failures == [(str(folder / "4.png"), "ValueError: cannot be drawn")]
        assert len(result.written) == result.num_images == 6
        assert str(folder / "4.png") not in {r["file_name"] for r in result.records}

    def test_reading(self, predictor: Predictor, folder: Path, tmp_path: Path):
        Image.fromarray(np.full((8, 8), 200.0, np.float32)).save(folder / "f.tif")
        result = run_on_files(predictor, collect_inputs([folder]), tmp_path / "out")
        (name, reason), *others = result.failures
        assert (name, others) == (str(folder / "f.tif"), [])
        assert reason.startswith("has float values from 200 to 200")
        assert result.num_images == 7

    def test_a_video(self, predictor: Predictor, tmp_path: Path, monkeypatch):
        videos = [write_video(tmp_path / "in" / f"{name}.avi", 2) for name in "ab"]
        pictures = predictor.model.forward

        def fail_once(inputs):
            monkeypatch.setattr(predictor.model, "forward", pictures)
            raise RuntimeError("out of memory")

        monkeypatch.setattr(predictor.model, "forward", fail_once)
        result = run_on_files(predictor, collect_inputs(videos), tmp_path / "out")
        assert result.failures == [(str(videos[0]), "RuntimeError: out of memory")]
        assert result.written == [tmp_path / "out" / "b.mp4"]

    def test_a_full_disk_does(
        self, predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch
    ):
        """The other pictures would meet it too."""

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="the disk is full"):
            run_on_files(predictor, collect_inputs([folder]), tmp_path / "out")


def test_records_are_the_predictors_detections(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    result = run_on_files(predictor, collect_inputs([path]), tmp_path / "out")
    expected = predictor(path)
    assert not result.failures
    assert len(result.records) == len(expected) > 0
    boxes = torch.tensor([r["bbox"] for r in result.records])
    boxes[:, 2:] += boxes[:, :2]
    assert torch.allclose(boxes, expected.pred_boxes.tensor, atol=0.01)
    assert [r["category_id"] for r in result.records] == expected.pred_classes.tolist()


def test_star_pictures_differ_from_plain_ones(predictor: Predictor, tmp_path: Path, monkeypatch):
    sources = collect_inputs([write_picture(tmp_path / "a.png")])
    run_on_files(predictor, sources, tmp_path / "plain")
    run_on_files(predictor, sources, tmp_path / "star", star=True)
    plain, star = (np.asarray(Image.open(tmp_path / x / "a.png")) for x in ("plain", "star"))
    yellow = (255, 225, 25)
    assert (star == yellow).all(-1).any()
    assert not (plain == yellow).all(-1).any()

    monkeypatch.setattr(type(predictor.model), "extra_fields", {})
    with pytest.raises(InputError, match="no star points"):
        run_on_files(predictor, sources, tmp_path / "star", star=True)


def test_video(predictor: Predictor, tmp_path: Path):
    video = write_video(tmp_path / "street.avi", frames=5)
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out")
    assert result.written == [tmp_path / "out" / "street.mp4"]
    assert read_video(result.written[0]) == (5, pytest.approx(12.5), (8 * 96, 8 * 64))
    assert result.num_images == 5
    assert {r["frame"] for r in result.records} == set(range(5))
    assert {r["file_name"] for r in result.records} == {"street.avi"}
    assert list((tmp_path / "out").iterdir()) == result.written


def test_video_stops_after_max_frames(predictor: Predictor, tmp_path: Path):
    video = write_video(tmp_path / "street.mp4", frames=5)
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out", max_frames=4)
    assert read_video(result.written[0])[0] == 4


def test_broken_video_is_named(predictor: Predictor, tmp_path: Path):
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"no video")
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out")
    assert result.failures == [
        (str(video), "cannot open broken.mp4: not a video that OpenCV reads")
    ]
    assert not result.written


class Camera:
    """Three frames, then Ctrl-C."""

    def __init__(self, number):
        self.frames = [np.zeros((64, 96, 3), np.uint8)] * 3 if number == 7 else []
        self.opened = number == 7

    def isOpened(self):
        return self.opened

    def get(self, _):
        return 0.0

    def read(self):
        if not self.frames:
            raise KeyboardInterrupt
        return True, self.frames.pop()

    def release(self):
        self.opened = False


def test_camera_is_recorded_until_interrupted(predictor: Predictor, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(predictor, "batch_size", 1)
    result = run_on_camera(predictor, 7, tmp_path)
    with pytest.raises(InputError, match="cannot open camera 5"):
        run_on_camera(predictor, 5, tmp_path)
    monkeypatch.undo()
    assert result.num_images == 3
    assert read_video(tmp_path / "camera_7.mp4") == (3, pytest.approx(25.0), (8 * 96, 8 * 64))


def test_inputs(tmp_path: Path):
    first = write_picture(tmp_path / "one" / "a.png")
    second = write_picture(tmp_path / "two" / "a.png")
    video = write_video(tmp_path / "one" / "v.avi", 1)
    found = collect_inputs([first, str(tmp_path / "t*" / "*.png"), video])
    assert [s.path for s in found] == [first, second, video]
    assert [str(s.output) for s in found] == ["a.png", "a_2.png", "v.mp4"]
    assert [s.is_video for s in found] == [False, False, True]


def test_links_that_lead_nowhere_are_inputs_too(tmp_path: Path):
    """They are listed as what cannot be read, not left out without a word."""
    write_picture(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for given in (tmp_path, tmp_path / "*.png"):
        names = [s.path.name for s in collect_inputs([str(given)])]
        assert names == ["a.png", "gone.png", "loop.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.png", "absent.png does not exist"),
        ("*.tiff", "tiff does not exist"),
        ("empty", "has no pictures"),
        ("notes.txt", "neither a picture nor a video"),
    ],
)
def test_wrong_inputs_are_named(name: str, message: str, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("text")
    argv = ["--config-file", CONFIG, "--input", str(tmp_path / name), "--output", str(tmp_path)]
    assert tool.main(argv) == 2
    assert message in capsys.readouterr().err


def test_missing_weights_are_an_error(tmp_path: Path, capsys):
    picture = write_picture(tmp_path / "a.png")
    argv = ["--config-file", CONFIG, "--input", str(picture), "--output", str(tmp_path / "out")]
    assert tool.main(argv) == 2
    assert "names no weights" in capsys.readouterr().err
    assert tool.main([*argv, "--weights", str(tmp_path / "absent.pth")]) == 2
    assert "absent.pth does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opts", "model.num_clases=2"], "Did you mean model.num_classes"),
        (["--opts", "model.num_classes=two"], "model.num_classes=two: int expected"),
        (["--opts", "model.num_classes"], "must have the form key=value"),
        (["--device", "gpu"], "device 'gpu' is not known"),
        (["--score-threshold", "50"], "score_thresh must lie in [0, 1]"),
        (["--score-threshold", "-0.1"], "got -0.1"),
        (["--score-threshold", "nan"], "got nan"),
        (["--device", "cuda:99"], "CUDA devices here"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, tmp_path: Path, capsys):
    picture = write_picture(tmp_path / "a.png")
    argv = ["--config-file", CONFIG, "--input", str(picture), "--output", str(tmp_path / "out")]
    assert tool.main([*argv, "--weights", str(tmp_path / "absent.pth"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_inputs_are_never_overwritten(predictor: Predictor, tmp_path: Path):
    picture = write_picture(tmp_path / "a.png")
    before = picture.read_bytes()
    with pytest.raises(InputError, match="would be overwritten"):
        run_on_files(predictor, collect_inputs([tmp_path]), tmp_path)
    assert picture.read_bytes() == before


@pytest.fixture
def data_set() -> Iterator[str]:
    """Name of a data set in which a has the category id 90 and b 17."""
    metadata = MetadataCatalog.get("demo_test_set")
    metadata.thing_classes = ["a", "b"]
    metadata.thing_dataset_id_to_contiguous_id = {17: 1, 90: 0}
    yield "demo_test_set"
    MetadataCatalog.remove("demo_test_set")


@pytest.mark.parametrize(
    ("names", "trained_on", "ids"),
    [
        (["a", "b"], None, [90, 17]),
        (["b", "a"], None, [17, 90]),
        (["b", "a"], [1, 2], [17, 90]),
        (["a", "c"], None, [0, 1]),
        (["a", "c"], [5, 7], [5, 7]),
        (["b"], [3], [3]),
        (["a", "a"], None, [0, 1]),
    ],
)
def test_category_ids_follow_names(data_set: str, names, trained_on, ids):
    assert category_ids(names, data_set, trained_on) == ids


def test_category_ids_without_a_data_set():
    assert category_ids(["a", "b"], None) == [0, 1]
    assert category_ids(["a", "b"], "no such data set", [4, 2]) == [4, 2]


def test_records_have_the_ids_that_the_model_was_trained_on(weights, tmp_path: Path):
    content = torch.load(weights, weights_only=True)
    path = tmp_path / "own.pth"
    torch.save({**content, "category_ids": [11, 22, 33, 44, 55, 66]}, path)
    predictor = Predictor(CONFIG, path, device="cpu", score_thresh=0.1)
    result = run_on_files(
        predictor, collect_inputs([write_picture(tmp_path / "a.png")]), tmp_path / "out"
    )
    assert result.records
    for record in result.records:
        assert record["category_id"] == 11 * (NAMES.index(record["category_name"]) + 1)
