"""The figures of the papers: what they show, by hand, and the command that writes them."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image
from vfnet_yolof.cli.figure import FIGURES
from vfnet_yolof.cli.main import main

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
