"""What is listed as JSON: the detections, under the data set's own ids."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_inputs import CONFIG, NAMES, write_picture
from detectron2.data import MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vfnet_yolof import Predictor
from vfnet_yolof.cli.main import main
from vfnet_yolof.inference.demo import category_ids, collect_inputs, run_on_files
from vfnet_yolof.inference.inputs import DataSetIds, InputError


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


CATEGORY_IDS = [3, 5, 8, 13, 21, 34]


@pytest.fixture(scope="module")
def data(predictor: Predictor, tmp_path_factory) -> Path:
    """A folder with a.json and images/, annotated with half of what the model finds, displaced."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [
        {"id": i, "name": name} for i, name in zip(CATEGORY_IDS, NAMES, strict=True)
    ]
    for number in range(4):
        name = f"{'deep/' * (number == 3)}{number}.png"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(image).save(path)
        entry = {"id": 40 - 7 * number, "file_name": name, "width": 96, "height": 64}
        content["images"].append(entry)
        found = predictor(path)[::2]
        boxes = found.pred_boxes.tensor.numpy() + rng.normal(0, 1, (len(found), 4))
        for (x0, y0, x1, y1), label in zip(boxes, found.pred_classes.tolist(), strict=True):
            box = [max(x0, 0), max(y0, 0), max(x1 - x0, 2), max(y1 - y0, 2)]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": entry["id"],
                    "category_id": CATEGORY_IDS[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    (folder / "a.json").write_text(json.dumps(content))
    return folder


class TestAnnotations:
    """With them the listing has the data set's ids, and is scored as an evaluation scores."""

    def predict(self, weights: Path, data: Path, *options: str) -> int:
        command = ["predict", CONFIG, str(data / "images"), "--weights", str(weights)]
        return main([*command, "--device", "cpu", "--score-threshold", "0.05", *options])

    def test_scored_as_evaluate_scores(self, weights: Path, data: Path, tmp_path: Path) -> None:
        listing = tmp_path / "found.json"
        options = ["--output", str(tmp_path / "drawn"), "--json", str(listing)]
        assert self.predict(weights, data, *options, "--annotations", str(data / "a.json")) == 0
        truth = COCO(str(data / "a.json"))
        scored = COCOeval(truth, truth.loadRes(str(listing)), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
        command = ["evaluate", CONFIG, "--weights", str(weights), "--device", "cpu"]
        command += ["--val-json", str(data / "a.json"), "--val-images", str(data / "images")]
        assert main([*command, "--output", str(tmp_path / "run")]) == 0
        (metrics,) = (tmp_path / "run").rglob("inference/**/metrics.json")
        evaluated = json.loads(metrics.read_text())["bbox"]
        assert 5 < evaluated["AP"] < 95
        for key, value in zip(("AP", "AP50", "AP75"), scored.stats, strict=False):
            assert 100 * value == pytest.approx(evaluated[key], abs=1e-3)

    def test_without_them_images_are_counted(self, weights, data, tmp_path, capsys) -> None:
        listing = tmp_path / "found.json"
        assert self.predict(weights, data, "--output", str(tmp_path), "--json", str(listing)) == 0
        records = json.loads(listing.read_text())
        assert {r["image_id"] for r in records} == {1, 2, 3, 4}
        assert {r["file_name"] for r in records} == {str(p) for p in data.rglob("*.png")}
        assert {NAMES[r["category_id"]] for r in records} == {r["category_name"] for r in records}
        assert "category_id counts classes from 0" in capsys.readouterr().out

    def test_what_the_file_lacks_is_refused(self, weights, data, tmp_path, capsys) -> None:
        copied = tmp_path / "data"
        shutil.copytree(data, copied)
        other = write_picture(copied / "images" / "other.png")
        out = ["--output", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
        given = ["--annotations", str(data / "a.json")]
        assert self.predict(weights, copied, *out, *given) == 2
        answer = capsys.readouterr().err.splitlines()[-1]
        assert answer == f"error: {other}: {data / 'a.json'} has no image of that name"
        assert not (tmp_path / "out").exists()

    def test_an_image_of_another_size_is_a_failure(self, weights, data, tmp_path, capsys) -> None:
        copied = tmp_path / "data"
        shutil.copytree(data, copied)
        write_picture(copied / "images" / "1.png", 32, 48)
        out = ["--output", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
        assert self.predict(weights, copied, *out, "--annotations", str(data / "a.json")) == 1
        assert f"1.png: ValueError: is 48x32 px, but 96x64 in {data / 'a.json'}" in (
            capsys.readouterr().err
        )
        records = json.loads((tmp_path / "found.json").read_text())
        assert {r["image_id"] for r in records} == {40, 26, 19}

    def test_classes_are_found_by_name(self, data: Path) -> None:
        sources = collect_inputs([data / "images"])
        ids = DataSetIds(data / "a.json", sources, NAMES[::-1])
        assert ids.category_ids == CATEGORY_IDS[::-1]
        with pytest.raises(InputError, match="has other classes than the model: only the model"):
            DataSetIds(data / "a.json", sources, [*NAMES[1:], "gnu"])

    def test_images_are_found_by_their_folders(self, tmp_path: Path) -> None:
        names = ["a.png", "x/a.png", "y\\b.png"]
        content = {
            "images": [
                {"id": i, "file_name": name, "width": 64, "height": 64}
                for i, name in enumerate(names)
            ],
            "categories": [{"id": 1, "name": "ant"}],
            "annotations": [],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        paths = [write_picture(tmp_path / name) for name in ("a.png", "x/a.png", "y/b.png")]
        ids = DataSetIds(tmp_path / "a.json", collect_inputs(paths), ["ant"])
        assert [ids.image_id(path, (64, 64)) for path in paths] == [0, 1, 2]
        again = collect_inputs([paths[0], paths[0]])
        with pytest.raises(InputError, match=r"a\.png and .*a\.png are one image of .*a\.json: 0"):
            DataSetIds(tmp_path / "a.json", again, ["ant"])
        content["images"][1]["file_name"] = "a.png"
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"a\.png: .*a\.json has 2 images of that name"):
            DataSetIds(tmp_path / "a.json", collect_inputs(paths), ["ant"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--annotations", "a.json"], "--annotations gives the ids in --json FILE"),
            (["--json", "."], "--json . is a folder; name a file"),
            (["--json", "f.json", "--annotations", "gone.json"], "gone.json"),
        ],
    )
    def test_options_that_do_not_fit(
        self, options, message, weights, data, tmp_path, monkeypatch, capsys
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.predict(weights, data, "--output", "out", *options) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_file_in_the_outputs_place_is_said_once(weights, data, tmp_path: Path, capsys) -> None:
    (tmp_path / "taken").write_text("a file")
    for output in (tmp_path / "taken", tmp_path / "taken" / "below"):
        command = ["predict", CONFIG, str(data / "images"), "--weights", str(weights)]
        assert main([*command, "--device", "cpu", "--output", str(output)]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
        assert line.startswith(f"error: {output} must be a folder for the drawn results; ")
