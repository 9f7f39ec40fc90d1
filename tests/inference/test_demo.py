"""The demo: what goes in comes out drawn and listed, and what is broken is named."""

import errno
import json
from pathlib import Path

import demo as tool
import numpy as np
import pytest
from demo_inputs import CONFIG, NAMES, write_picture, write_video
from PIL import Image
from vfnet_yolof import Predictor
from vfnet_yolof.inference.demo import InputError, collect_inputs, run_on_files


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

        monkeypatch.setattr("vfnet_yolof.inference.predictor.draw_found", fail_on_wide)
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
        ("empty", "has no images or videos"),
        ("notes.txt", "neither an image nor a video"),
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
