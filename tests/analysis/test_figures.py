"""The figures of the papers: what they show, by hand, and the command that writes them."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from PIL import Image
from studied import write_studied
from vfnet_yolof.analysis.figures import Options
from vfnet_yolof.analysis.figures.quality import labels, scores, targets
from vfnet_yolof.analysis.figures.scales import receptive_fields
from vfnet_yolof.analysis.positives import Seen, seen_images
from vfnet_yolof.analysis.subject import Subject, open_subject
from vfnet_yolof.cli.figure import FIGURES
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.read import RunFlags
from vfnet_yolof.modeling.necks.dilated_encoder import DilatedEncoder

Output = pytest.CaptureFixture[str]


def test_the_list_names_every_figure(capsys: Output) -> None:
    assert main(["figure", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(FIGURES)


class TestQfl:
    def test_png_and_numbers(self, tmp_path: Path, capsys: Output) -> None:
        output = tmp_path / "new" / "qfl.png"
        options = ["--betas", "0", "2", "--quality", "0.4"]
        assert main(["figure", "qfl", "--output", str(output), *options]) == 0
        assert str(output) in capsys.readouterr().out
        assert Image.open(output).size[0] > 500
        content = json.loads(output.with_suffix(".json").read_text())
        assert content["figure"] == "qfl" and content["models"] == []
        score = content["score"]
        at = score.index(0.2)
        entropy = -(0.4 * math.log(0.2) + 0.6 * math.log(0.8))
        assert content["loss"]["0"][at] == pytest.approx(entropy)
        assert content["loss"]["2"][at] == pytest.approx(0.2**2 * entropy)
        least = min(range(len(score)), key=content["loss"]["2"].__getitem__)
        assert score[least] == pytest.approx(0.4)

    def test_svg_keeps_its_text(self, tmp_path: Path) -> None:
        output = tmp_path / "qfl.svg"
        assert main(["figure", "qfl", "--output", str(output)]) == 0
        assert ">predicted score</text>" in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "x.png"], "Name a figure; there are "),
        (["qfll", "--output", "x.png"], "no figure 'qfll'"),
        (["qfl"], "--output is missing"),
        (["qfl", "--output", "x.jpg"], "x.jpg: figures are PNG or SVG"),
        (["qfl", "run", "--output", "x.png"], "takes 0 MODEL, got 1"),
        (["qfl", "model.num_classes=3", "--output", "x.png"], "no MODEL for model.num_classes=3"),
        (["qfl", "--betas", "-1", "--output", "x.png"], "--betas -1"),
        (["qfl", "--quality", "2", "--output", "x.png"], "--quality 2"),
    ],
)
def test_refused(arguments: list[str], says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["figure", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Of each tiny detector, with its data."""
    folder = tmp_path_factory.mktemp("figures")
    return {name: write_studied(folder / name, name) for name in ("atss", "gfl", "yolof")}


@pytest.fixture(scope="module")
def subjects(arguments: dict[str, list[str]]) -> dict[str, Subject]:
    found = {}
    for name, (model, _, json_file, _, images, *_) in arguments.items():
        flags = RunFlags(val_json=json_file, val_images=images, eval_only=True)
        found[name] = open_subject(model, None, [], flags, device="cpu")
    return found


def seen(subject: Subject) -> list[Seen]:
    return list(seen_images(subject))


def joined(subject: Subject, name: str) -> np.ndarray:
    """Of all positives; in the order of the images."""
    return torch.cat([getattr(x.positives, name) for x in seen(subject)]).double().numpy()


def test_images_come_with_the_classes_of_the_model(subjects: dict[str, Subject]) -> None:
    """The file has its categories in another order."""
    batches = list(subjects["gfl"].batches())
    assert [len(batch) for batch in batches] == [1] * 4
    classes = [batch[0]["instances"].gt_classes.tolist() for batch in batches]
    assert classes == [[0, 1], [2], [], [0, 2]]


class TestScores:
    def test_separate_beside_joint(self, subjects: dict[str, Subject]) -> None:
        pair = [subjects["atss"], subjects["gfl"]]
        drawn = scores(pair, Options())
        separate, joint = drawn.numbers["scores"].values()
        assert (separate["representation"], joint["representation"]) == ("separate", "joint")
        assert joint["points"]["score"] == joint["points"]["quality"]
        assert joint["positives"] == len(joint["points"]["iou"]) == len(joined(pair[1], "rows"))
        assert set(joint["rank_correlation"]) == {"ranking, IoU"}
        assert 0 <= separate["background_above_0.9"] <= 1
        assert "background_above_0.9" not in joint
        assert "atss/tiny.pth: rank correlation" in drawn.sentence

    def test_correlations_are_spearmans(self, subjects: dict[str, Subject]) -> None:
        stats = pytest.importorskip("scipy.stats")
        (numbers,) = scores([subjects["atss"]], Options()).numbers["scores"].values()
        score, quality, iou = (joined(subjects["atss"], x) for x in ("scores", "quality", "iou"))
        for name, pair in {
            "ranking, IoU": (score * quality, iou),
            "score, quality": (score, quality),
            "quality, IoU": (quality, iou),
        }.items():
            assert numbers["rank_correlation"][name] == pytest.approx(stats.spearmanr(*pair)[0])

    def test_the_same_model_twice(self, subjects: dict[str, Subject]) -> None:
        with pytest.raises(ValueError, match="named twice"):
            scores([subjects["gfl"]] * 2, Options())


class TestTargets:
    def test_histogram_and_shares(self, subjects: dict[str, Subject]) -> None:
        subject = subjects["gfl"]
        limit = subject.model.representation.max_distance
        numbers = targets([subject], Options()).numbers
        distances = joined(subject, "distances").ravel()
        assert numbers["sides"] == sum(numbers["counts"]) == len(distances)
        assert numbers["reg_max"] == limit
        for beyond, share in numbers["share_beyond"].items():
            assert share == pytest.approx((distances > float(beyond)).mean())
        # Image 1 has the only box that is 50 px wide: a side cannot be farther than that.
        assert distances.max() * 8 <= 50 + 8

    def test_a_detector_without_reg_max(self, subjects: dict[str, Subject]) -> None:
        drawn = targets([subjects["atss"]], Options())
        assert drawn.numbers["reg_max"] is None
        assert "GFL's reg_max" in drawn.sentence


class TestLabels:
    def test_histograms_and_cases(self, subjects: dict[str, Subject]) -> None:
        subject = subjects["atss"]
        numbers = labels([subject], Options()).numbers
        for name, key in (("centerness", "centerness"), ("IoU", "iou")):
            values = joined(subject, key)
            assert sum(numbers["counts"][name]) == numbers["positives"] == len(values)
            assert numbers["mean"][name] == pytest.approx(values.mean())
            assert numbers["share_below_0.4"][name] == pytest.approx((values < 0.4).mean())
        cases = numbers["cases"]
        assert len(cases) == 3
        assert cases == sorted(cases, key=lambda case: case["centerness"])

    def test_a_case_is_a_box_with_its_most_central_location(
        self, subjects: dict[str, Subject]
    ) -> None:
        found = seen(subjects["atss"])
        case: dict[str, Any] = labels([subjects["atss"]], Options()).numbers["cases"][0]
        best = []
        for one in found:
            positives = one.positives
            for box in positives.boxes.unique(dim=0):
                of_box = (positives.boxes == box).all(1)
                best.append(float(positives.centerness[of_box].max()))
        assert case["centerness"] == pytest.approx(min(best))
        x1, y1, x2, y2 = case["box"]
        for x, y in case["points"]:
            assert x1 <= x <= x2 and y1 <= y <= y2


@pytest.mark.parametrize("figure", ["scores", "targets", "labels"])
def test_each_command(
    figure: str, arguments: dict[str, list[str]], tmp_path: Path, capsys: Output
) -> None:
    output = tmp_path / f"{figure}.svg"
    command = ["figure", figure, *arguments["atss"], "--images", "2", "--output", str(output)]
    assert main(command) == 0
    assert str(output) in capsys.readouterr().out
    assert output.read_text().startswith("<?xml")
    content = json.loads(output.with_suffix(".json").read_text())
    assert content["models"][0]["weights"].endswith("tiny.pth")


class NoBackbone(Backbone):
    def forward(self, x: torch.Tensor) -> None:
        raise NotImplementedError

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res5": ShapeSpec(channels=3, stride=32)}


class TestScales:
    def test_receptive_fields_by_hand(self) -> None:
        """The paper's dilations: each of the sixteen paths widens 3 cells by 2 (2, 4, 6, 8)."""
        encoder = DilatedEncoder(NoBackbone(), channels=4, mid_channels=2)
        stride, projector, paths = receptive_fields(encoder)
        assert (stride, projector) == (32, 3)
        sums = [2 * sum(x) for n in range(5) for x in itertools.combinations((2, 4, 6, 8), n)]
        assert paths == Counter(3 + x for x in sums)
        assert [*paths] == sorted(paths) and max(paths) == 43

    def test_without_shortcuts_one_path_is_left(self) -> None:
        encoder = DilatedEncoder(
            NoBackbone(), channels=4, mid_channels=2, dilations=(2, 3), shortcut=False
        )
        assert receptive_fields(encoder)[2] == {13: 1}

    def test_the_command(
        self, arguments: dict[str, list[str]], tmp_path: Path, capsys: Output
    ) -> None:
        output = tmp_path / "scales.svg"
        command = ["figure", "scales", *arguments["yolof"], "--output", str(output)]
        assert main(command) == 0
        content = json.loads(output.with_suffix(".json").read_text())
        assert sum(content["counts"]) == content["boxes"] > 0
        assert sum(content["share"]["this encoder"].values()) == pytest.approx(1)
        (only,) = content["sizes"]["projector alone"]
        assert min(content["sizes"]["this encoder"]) == only == 3 * content["stride"]
        assert main(["figure", "scales", *arguments["atss"], "--output", str(output)]) == 2
        assert "no dilated encoder" in capsys.readouterr().err


def test_figures_of_locations_refuse_anchors(
    arguments: dict[str, list[str]], tmp_path: Path, capsys: Output
) -> None:
    for figure in ("targets", "labels"):
        output = ["--output", str(tmp_path / "x.png")]
        assert main(["figure", figure, *arguments["yolof"], *output]) == 2
        assert "is a YOLOF, which has anchors" in capsys.readouterr().err
    assert main(["figure", "labels", *arguments["atss"], "--betas", "1", *output]) == 2
    assert "--betas means nothing to figure labels" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
