"""Figures of single images: what they show is what the model says, on tiny detectors."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from studied import BOXES, write_studied
from vfnet_yolof.analysis.figures.background import background_patches
from vfnet_yolof.analysis.figures.images import level_maps
from vfnet_yolof.analysis.positives import seen_images
from vfnet_yolof.analysis.subject import Subject, open_subject
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.read import RunFlags


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory):
    """The arguments that name a tiny detector and its data, by the detector's name."""
    return cache(lambda name: write_studied(tmp_path_factory.mktemp(name) / name, name))


def opened(arguments: list[str]) -> Subject:
    checkpoint, _, annotations, _, images, *_ = arguments
    flags = RunFlags(val_json=annotations, val_images=images, eval_only=True)
    return open_subject(checkpoint, None, [], flags, device="cpu")


def draw(figure: str, arguments: list[str], output: Path, *options: str) -> dict:
    """Run the command; the numbers that it wrote."""
    assert main(["figure", figure, *arguments, "--output", str(output), *options]) == 0
    assert Image.open(output).size[0] > 400
    return json.loads(output.with_suffix(".json").read_text())


class TestMaps:
    """VarifocalNet, figures 1 and 2."""

    def test_a_separate_quality_has_maps_of_its_own(self, studied, tmp_path: Path) -> None:
        arguments = studied("atss")
        content = draw("maps", arguments, tmp_path / "maps.png", "--image", "1")
        subject = opened(arguments)
        inputs = [batch[0] for batch in subject.batches()][1]
        levels = level_maps(subject, inputs)
        assert content["image"] == "1.png"
        assert [*content["levels"]] == [*subject.model.head_in_features]
        for told, level in zip(content["levels"].values(), levels, strict=True):
            assert level.quality is not None
            product = level.score * level.quality
            assert told["product"]["highest"] == pytest.approx(float(product.max()), abs=1e-6)
            row, column = told["product"]["at"]
            assert product[row, column] == product.max()

    def test_maps_are_the_detections_scores_without_padding(self, studied) -> None:
        subject = opened(studied("gfl"))
        inputs = next(subject.batches())[0]
        levels = level_maps(subject, inputs)
        assert all(level.quality is None for level in levels)
        height, width = inputs["image"].shape[-2:]
        assert levels[0].score.shape == (-(-height // 8), -(-width // 8))
        best = max(float(level.ranking.max()) for level in levels)
        with torch.no_grad():
            (found,) = subject.model.detect([{"image": inputs["image"]}])
        assert float(found["instances"].scores.max()) == pytest.approx(best, abs=1e-5)

    def test_several_anchors_share_a_place(self, studied, tmp_path: Path) -> None:
        content = draw("maps", studied("yolof"), tmp_path / "maps.png")
        assert [*content["levels"]] == ["encoded"]
        assert [*content["levels"]["encoded"]] == ["score"]


def test_star_points_are_on_the_first_box(studied, tmp_path: Path) -> None:
    """VarifocalNet, figures 1 and 3."""
    options = ["--score-threshold", "0", "--count", "3"]
    content = draw("star", studied("vfnet"), tmp_path / "star.png", *options)
    assert len(content["detections"]) == 3
    for found in content["detections"]:
        points, (x0, y0, x1, y1) = np.array(found["star_points"]), found["first_box"]
        assert points.shape == (9, 2)
        np.testing.assert_allclose([points[:, 0].min(), points[:, 0].max()], [x0, x1], atol=1e-3)
        np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], [y0, y1], atol=1e-3)


def test_sides_have_distributions(studied, tmp_path: Path) -> None:
    """Generalized Focal Loss, figure 3."""
    options = ["--score-threshold", "0", "--count", "2"]
    content = draw("sides", studied("gfl"), tmp_path / "sides.png", *options)
    assert [len(x[key]) for x in content["detections"] for key in x] == 2 * [4, 4, 4]
    assert all(value > 0 for x in content["detections"] for value in x["std"])


def test_detections_and_ground_truth(studied, tmp_path: Path) -> None:
    """VarifocalNet, figure 4."""
    path = tmp_path / "found.png"
    content = draw("detections", studied("yolof"), path, "--score-threshold", "0")
    boxes = [sum(image == number for image, *_ in BOXES) for number in range(4)]
    assert [x["ground_truth"] for x in content["images"]] == boxes
    assert all(x["found"] > 0 for x in content["images"])
    few = draw("detections", studied("yolof"), path, "--score-threshold", "1", "--images", "2")
    assert [x["found"] for x in few["images"]] == [0, 0]


class TestBackground:
    """Generalized Focal Loss, figure 2a."""

    def test_patches_learn_nothing_and_touch_no_object(self, studied, tmp_path: Path) -> None:
        content = draw("background", studied("atss"), tmp_path / "patches.png", "--count", "5")
        patches = content["patches"]
        assert content["images"] == 4
        assert 1 <= len(patches) <= 5
        assert [x["quality"] for x in patches] == sorted(x["quality"] for x in patches)[::-1]
        assert all(x["iou"] < 0.1 for x in patches)

    def test_of_one_image(self, studied) -> None:
        subject = opened(studied("atss"))
        seen = next(seen_images(subject))
        empty = Instances(
            seen.inputs["instances"].image_size,
            gt_boxes=Boxes(torch.zeros(0, 4)),
            gt_classes=torch.zeros(0, dtype=torch.int64),
        )
        everywhere = seen._replace(inputs={**seen.inputs, "instances": empty})
        patches = background_patches(everywhere, 1000)
        assert all(patch.iou == 0 for patch in patches)
        # The positives' own boxes stay out though no object is there to be touched.
        positives = {round(x, 4) for x in seen.positives.quality.tolist()}
        assert not positives & {round(patch.quality, 4) for patch in patches}
        assert len(background_patches(everywhere, 2)) == 2

    def test_a_joint_score_is_the_quality(self, studied, tmp_path: Path, capsys) -> None:
        content = draw("background", studied("gfl"), tmp_path / "patches.png", "--images", "3")
        assert all(x["quality"] == x["score"] for x in content["patches"])
        said = capsys.readouterr().out
        assert "its class score" in said and "where the class score is" not in said


@pytest.mark.parametrize(
    ("figure", "detector", "options", "says"),
    [
        ("maps", "atss", ["--image", "4"], "--image 4: there are 4 test images, counted from 0"),
        ("maps", "atss", ["--image", "-1"], "--image -1"),
        ("star", "atss", [], "VFNet has star points, name one"),
        ("sides", "atss", [], "GFL has distributions of box sides"),
        ("star", "vfnet", ["--score-threshold", "1"], "lower --score-threshold"),
        ("detections", "yolof", ["--score-threshold", "2"], "--score-threshold 2"),
        ("background", "gfl", ["--count", "0"], "--count 0"),
        ("star", "vfnet", ["--count", "0"], "--count 0"),
        ("maps", "atss", ["--count", "3"], "--count means nothing to figure maps"),
    ],
)
def test_refused(
    figure: str, detector: str, options: list[str], says: str, studied, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "x.png"
    assert main(["figure", figure, *studied(detector), *options, "--output", str(output)]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()
