"""Drawings show what they should where they should, and leave their input alone."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from vfnet_yolof.drawing import fonts
from vfnet_yolof.drawing.visualization import (
    DISTRIBUTION_BOX_COLOR,
    DISTRIBUTION_COLOR,
    INITIAL_BOX_COLOR,
    REFINED_BOX_COLOR,
    STAR_POINT_COLOR,
    class_color,
    draw_distributions,
    draw_instances,
    draw_star,
)

NAMES = ["cat", "Größe", "кот"]


def detections(boxes: list[list[float]], classes: list[int], scores: list[float]) -> Instances:
    instances = Instances((120, 160))
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.scores = torch.tensor(scores)
    return instances


@pytest.fixture
def image() -> np.ndarray:
    return np.full((120, 160, 3), 128, np.uint8)


def test_box_outline_and_label(image):
    drawn = draw_instances(image, detections([[40, 50, 100, 90]], [1], [0.9]), NAMES, line_width=1)
    color = class_color(1)
    for x, y in ((40, 70), (100, 70), (70, 90)):
        assert tuple(drawn[y, x]) == color
    assert tuple(drawn[70, 70]) == (128, 128, 128)  # boxes are not filled
    label = drawn[36:50, 40:80].reshape(-1, 3)
    assert (label == color).all(1).any()  # the strip
    assert len(np.unique(label, axis=0)) > 2  # and the text on it
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == 128).all()


def test_score_threshold_and_no_detections(image):
    found = detections([[40, 50, 100, 90]], [1], [0.4])
    assert (draw_instances(image, found, NAMES, score_thresh=0.5) == image).all()
    assert (draw_instances(image, detections([], [], []), NAMES) == image).all()
    assert (draw_instances(image, found, NAMES) != image).any()


def test_surer_detections_lie_above(image):
    box = [40.0, 50.0, 100.0, 90.0]
    found = detections([box, box], [0, 1], [0.9, 0.5])
    drawn = draw_instances(image, found, NAMES, line_width=1)
    assert tuple(drawn[70, 40]) == class_color(0)


def test_boxes_at_and_beyond_the_border(image):
    found = detections(
        [[-20, -20, 300, 300], [150, 0, 160, 5], [10, 10, 5, 5]], [0, 1, 2], [0.9] * 3
    )
    drawn = draw_instances(image, found, NAMES)
    assert drawn.shape == image.shape
    assert (drawn[:20, 120:] != 128).any()  # the label is moved into the image


def test_names_and_images_are_checked(image):
    with pytest.raises(IndexError):
        draw_instances(image, detections([[0, 0, 9, 9]], [3], [0.9]), NAMES)
    with pytest.raises(ValueError, match="got float64"):
        draw_instances(image / 255, detections([], [], []), NAMES)


def test_colors_are_fixed_and_differ():
    colors = [class_color(i) for i in range(80)]
    assert len(set(colors)) == 80
    assert colors[:2] == [class_color(0), class_color(1)]
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_star(image):
    found = detections([[40, 50, 100, 90]], [0], [0.9])
    found.init_boxes = Boxes(torch.tensor([[30.0, 45.0, 90.0, 95.0]]))
    x, y = torch.meshgrid(
        torch.tensor([30.0, 60.0, 90.0]), torch.tensor([45.0, 70.0, 95.0]), indexing="xy"
    )
    found.star_points = torch.stack([x, y], dim=-1).reshape(1, 9, 2)
    drawn = draw_star(image, found, NAMES, line_width=1)
    assert tuple(drawn[85, 30]) == INITIAL_BOX_COLOR
    assert tuple(drawn[80, 40]) == REFINED_BOX_COLOR
    for x, y in found.star_points[0, 3:].int().tolist():  # the label may cover the upper three
        assert tuple(drawn[y, x]) == STAR_POINT_COLOR


def test_star_needs_its_fields(image):
    with pytest.raises(ValueError, match="no init_boxes.*predict_star"):
        draw_star(image, detections([], [], []), NAMES)


STEP = 8.0  # px between the bins


def with_distributions(
    boxes: list[list[float]], center: tuple[float, float], probabilities: torch.Tensor
) -> Instances:
    """Boxes around ``center``, cut off at the picture's edges as a model does it."""
    found = detections(boxes, [0] * len(boxes), [0.9] * len(boxes))
    found.pred_boxes.clip((120, 160))
    found.side_probabilities = probabilities
    found.side_points = torch.tensor([center] * len(boxes))
    found.side_intervals = torch.full((len(boxes), 4), STEP)
    return found


def sure(bins: list[int], count: int = 9) -> torch.Tensor:
    """(1, 4, count): everything in one bin for each side."""
    return torch.eye(count)[torch.tensor(bins)][None]


def orange(drawn: np.ndarray) -> np.ndarray:
    """(H, W) bool: lines of the curves."""
    return (drawn == DISTRIBUTION_COLOR).all(-1)


class TestDistributions:
    """A box from (48, 36) to (112, 84) around (80, 60): 4 and 3 bins of 8 px."""

    BOX = (48.0, 36.0, 112.0, 84.0)

    def draw(self, image, probabilities, **options) -> np.ndarray:
        found = with_distributions([list(self.BOX)], (80, 60), probabilities)
        return draw_distributions(image, found, NAMES, line_width=1, curve_height=20, **options)

    def test_certain_sides_are_peaks_at_the_sides(self, image):
        drawn = self.draw(image, sure([4, 3, 4, 3]))
        peaks = orange(drawn)
        for x in (48, 112):  # they rise from the middle of the side; the lines at 56 are bases
            assert peaks[60 - 19, x - 1 : x + 2].any()
            assert not peaks[60 - 19, [x - 5, x + 5]].any()
        assert peaks[83:86, 80 + 19].any()
        assert tuple(drawn[70, 48]) == DISTRIBUTION_BOX_COLOR

    def test_an_unclear_side_is_low_and_broad(self, image):
        unclear = sure([4, 3, 4, 3])
        unclear[0, 0] = 1 / 9  # the mean is bin 4, as before
        drawn = orange(self.draw(image, unclear))
        assert not drawn[60 - 19 : 60 - 5, :80].any()
        columns = np.flatnonzero(drawn[57:60, :80].any(0))
        assert columns.min() == 80 - 8 * STEP  # bin 8
        assert drawn[60 - 19, 111:114].any()  # the other side is as sure as it was

    def test_height_is_probability(self, image):
        half = sure([4, 3, 4, 3])
        half[0, 0] = 0
        half[0, 0, [3, 5]] = 0.5
        drawn = orange(self.draw(image, half))
        for x in (40, 56):
            assert drawn[60 - 10, x - 1 : x + 2].any()
            assert not drawn[: 60 - 11, x].any()

    def test_a_side_beyond_the_picture_does_not_shift_the_others(self, image):
        probabilities = sure([4, 3, 4, 3])
        found = with_distributions([[-12.0, 36, 52, 84]], (20, 60), probabilities)
        assert found.pred_boxes.tensor[0, 0] == 0
        drawn = orange(draw_distributions(image, found, NAMES, line_width=1, curve_height=20))
        assert drawn[60 - 19, 51:54].any()
        assert not drawn[60 - 19, :20].any()  # the cut side peaks outside

    def test_the_two_directions_may_have_other_scales(self, image):
        """As in a picture that was not resized equally."""
        found = with_distributions([[64.0, 36, 96, 84]], (80, 60), sure([4, 3, 4, 3]))
        found.side_intervals = torch.tensor([[4.0, 8.0, 4.0, 8.0]])
        drawn = orange(draw_distributions(image, found, NAMES, line_width=1, curve_height=20))
        assert drawn[60 - 19, 63:66].any()
        assert drawn[60 - 19, 95:98].any()
        assert drawn[83:86, 80 + 19].any()

    def test_nothing_found(self, image):
        found = with_distributions([list(self.BOX)], (80, 60), sure([4, 3, 4, 3]))
        drawn = draw_distributions(image, found, NAMES, score_thresh=0.95)
        assert (drawn == image).all()

    def test_fields_are_needed(self, image):
        with pytest.raises(ValueError, match="no side_probabilities.*predict_distributions"):
            draw_distributions(image, detections([], [], []), NAMES)


def make_font(path: Path, letters: str) -> Path:
    """A font with a bar of its own height for each letter."""
    pens, cmap = {}, {}
    for number, letter in enumerate(letters, start=1):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 40 * number), (400, 40 * number), (400, 0)):
            pen.lineTo(corner)
        pen.closePath()
        cmap[ord(letter)] = f"glyph{number}"
        pens[f"glyph{number}"] = pen.glyph()
    names = [".notdef", *pens]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(cmap)
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph()} | pens)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (500, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(str(path))
    return path


class TestNamesInOtherScripts:
    CAT, DOG = "猫", "犬"
    REST = "0123456789% "

    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(fonts.font_manager, "findSystemFonts", list)
        fonts.fonts_for.cache_clear()
        yield
        fonts.fonts_for.cache_clear()

    def use(self, monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
        found = [str(path) for path in paths]
        monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: found)

    def drawn(self, image: np.ndarray, name: str) -> np.ndarray:
        names = ["cat", name]
        return draw_instances(image, detections([[40, 50, 100, 90]], [1], [0.9]), names)

    def test_a_font_that_has_them_is_found(self, image, tmp_path, monkeypatch, caplog):
        other = make_font(tmp_path / "A-Regular.ttf", "語" + self.REST)
        right = make_font(tmp_path / "B.ttf", self.CAT + self.DOG + self.REST)
        bold = make_font(tmp_path / "A-Bold.ttf", self.CAT + self.DOG + self.REST)
        blank = make_font(tmp_path / "Last Resort.ttf", self.CAT + self.DOG + self.REST)
        self.use(monkeypatch, bold, blank, other, right)
        assert fonts.fonts_for(("cat", self.CAT, self.DOG)) == (fonts.DEFAULT, right, right)
        with caplog.at_level(logging.WARNING):
            assert (self.drawn(image, self.CAT) != self.drawn(image, self.DOG)).any()
        assert not caplog.records

    def test_one_warning_names_those_without_letters(self, image, tmp_path, monkeypatch, caplog):
        without_digits = make_font(tmp_path / "letters.ttf", self.CAT + self.DOG)
        broken = tmp_path / "broken.ttf"
        broken.write_bytes(b"no font")
        self.use(monkeypatch, broken, without_digits, tmp_path / "gone.ttf")
        found = detections([[40, 50, 100, 90], [0, 0, 9, 9]], [1, 2], [0.9, 0.8])
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                draw_instances(image, found, ["cat", self.CAT, self.DOG])
        (record,) = caplog.records
        assert f"class names {self.CAT}, {self.DOG}:" in record.getMessage()
        assert "Install a font" in record.getMessage()

    def test_usual_names_need_no_search(self, monkeypatch):
        def refuse() -> list[str]:
            raise AssertionError("system fonts are searched without need")

        monkeypatch.setattr(fonts.font_manager, "findSystemFonts", refuse)
        assert fonts.fonts_for(tuple(NAMES)) == (fonts.DEFAULT,) * 3
