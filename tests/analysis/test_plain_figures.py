"""Figures that need no model: distributions of one mean, and accuracy against cost."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from vfnet_yolof.analysis.figures.distributions import with_mean
from vfnet_yolof.analysis.figures.tradeoff import Point, front, published_points
from vfnet_yolof.cli.main import main


class TestDfl:
    """Generalized Focal Loss, figure 5b."""

    def test_equal_means_and_unequal_losses(self, tmp_path: Path, capsys) -> None:
        output = tmp_path / "dfl.svg"
        assert main(["figure", "dfl", "--target", "6.25", "--output", str(output)]) == 0
        content = json.loads(output.with_suffix(".json").read_text())
        losses = []
        for found in content["distributions"].values():
            p = found["probabilities"]
            assert sum(p) == pytest.approx(1)
            assert found["mean"] == pytest.approx(6.25)
            assert found["mean"] == pytest.approx(sum(i * x for i, x in enumerate(p)))
            by_hand = -0.75 * math.log(p[6]) - 0.25 * math.log(p[7])  # equation 6
            assert found["loss"] == pytest.approx(by_hand)
            losses.append(found["loss"])
        least = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
        assert content["least_loss"] == pytest.approx(least)
        assert losses[2] == min(losses) > least

    @pytest.mark.parametrize("mean", [0.05, 8.0, 15.9])
    def test_any_mean_can_be_had(self, mean: float) -> None:
        found = with_mean(torch.ones(17, dtype=torch.float64), mean)
        assert float((found * torch.arange(17)).sum()) == pytest.approx(mean)
        if mean == 8.0:
            torch.testing.assert_close(found, torch.full_like(found, 1 / 17))

    @pytest.mark.parametrize("target", ["0", "16", "nan"])
    def test_refused(self, target: str, tmp_path: Path, capsys) -> None:
        output = str(tmp_path / "x.png")
        assert main(["figure", "dfl", "--target", target, "--output", output]) == 2
        assert f"--target {target}" in capsys.readouterr().err


class TestTradeoff:
    """Generalized Focal Loss, figure 7; YOLOF, figures 1 and 3."""

    MEASURED = {
        "data": "shapes",
        "points": [
            {"name": "dear", "ap": 40, "milliseconds": 50, "multiply_adds": 2e9},
            {"name": "cheap", "ap": 30.5, "milliseconds": 20, "multiply_adds": 1e9},
            {"name": "neither", "ap": 29, "milliseconds": 30, "multiply_adds": 3e9},
        ],
    }

    def write(self, folder: Path, content: object) -> str:
        file = folder / "measured.json"
        file.write_text(json.dumps(content))
        return str(file)

    def test_measured_and_published(self, tmp_path: Path, capsys) -> None:
        file, output = self.write(tmp_path, self.MEASURED), tmp_path / "tradeoff.svg"
        options = ["--points", file, "--published", "yolof"]
        assert main(["figure", "tradeoff", *options, "--output", str(output)]) == 0
        said = capsys.readouterr().out
        assert "3 measured and " in said and "than cheap, dear." in said
        assert "other images and another device" in said
        content = json.loads(output.with_suffix(".json").read_text())
        assert content["front"]["measured, shapes"] == ["cheap", "dear"]
        published = [x for x in content["points"] if x["published"]]
        yolof = next(x for x in published if x["name"] == "YOLOF")
        assert (yolof["ap"], yolof["cost"]) == (37.7, pytest.approx(1000 / 32))
        assert "published" in yolof["series"] and "RTX 2080 Ti" in yolof["series"]
        assert ">dear</text>" in output.read_text()

    def test_against_multiply_adds(self, tmp_path: Path) -> None:
        file, output = self.write(tmp_path, self.MEASURED), tmp_path / "tradeoff.png"
        options = ["--points", file, "--against", "multiply-adds"]
        assert main(["figure", "tradeoff", *options, "--output", str(output)]) == 0
        content = json.loads(output.with_suffix(".json").read_text())
        assert [x["cost"] for x in content["points"]] == [2, 1, 3]
        assert Image.open(output).size[0] > 500

    def test_published_multiply_adds(self, tmp_path: Path) -> None:
        """YOLOF, table 1: 86 and 201 for AP 37.7 of both."""
        file, output = self.write(tmp_path, self.MEASURED), tmp_path / "tradeoff.png"
        options = ["--points", file, "--published", "yolof", "--against", "multiply-adds"]
        assert main(["figure", "tradeoff", *options, "--output", str(output)]) == 0
        points = json.loads(output.with_suffix(".json").read_text())["points"]
        published = {x["name"]: (x["ap"], x["cost"]) for x in points if x["published"]}
        assert published["YOLOF"] == (37.7, 86)
        assert published["RetinaNet+"] == (37.7, 201)
        assert len(published) == 12

    def test_the_front(self) -> None:
        cheap, alike, worse, dear = (
            Point(name, ap, cost, "")
            for name, ap, cost in (("a", 30, 1), ("b", 29, 1), ("c", 30, 2), ("d", 31, 3))
        )
        assert front([dear, worse, alike, cheap]) == [cheap, dear]
        assert front([]) == []

    @pytest.mark.parametrize("paper", ["vfnet", "gfl", "yolof"])
    def test_published_points_are_told_apart_by_their_gpu(self, paper: str) -> None:
        points = published_points(paper)
        assert len(points) > 5
        assert len({(point.name, point.series) for point in points}) == len(points)
        assert all(point.published and "COCO" in point.series for point in points)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ([], 'give {"points"'),
            ({"points": []}, 'give {"points"'),
            ({"points": [{"ap": 1}]}, "points[0] needs a name"),
            ({"points": [{"name": "a", "ap": 101, "milliseconds": 1}]}, "points[0].ap"),
            ({"points": [{"name": "a", "ap": "41"}]}, 'got "41"'),
            ({"points": [{"name": "a", "ap": 41}]}, "milliseconds must be a number above 0: it is"),
            ({"points": [{"name": "a", "ap": 41, "milliseconds": math.nan}]}, "got NaN"),
            ({"points": [{"name": "a", "ap": 41, "milliseconds": math.inf}]}, "must be finite"),
        ],
    )
    def test_files_that_are_refused(self, content: object, says: str, tmp_path, capsys) -> None:
        file = self.write(tmp_path, content)
        output = str(tmp_path / "x.png")
        assert main(["figure", "tradeoff", "--points", file, "--output", output]) == 2
        error = capsys.readouterr().err
        assert says in error and file in error and len(error.splitlines()) == 1

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ([], "name files with --points"),
            (["--points", "no.json"], "no.json cannot be read"),
            (["--published", "gfl", "--against", "multiply-adds"], "that paper prints none"),
        ],
    )
    def test_refused(self, options: list[str], says: str, tmp_path: Path, capsys) -> None:
        output = str(tmp_path / "x.png")
        assert main(["figure", "tradeoff", *options, "--output", output]) == 2
        assert says in capsys.readouterr().err
