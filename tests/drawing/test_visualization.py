"""Drawings show what they should where they should, and leave their input alone."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image
from vfnet_yolof.drawing import fonts
from vfnet_yolof.drawing.canvas import class_color, display_scale, place_labels, save_image
from vfnet_yolof.drawing.visualization import (
    INITIAL_BOX_COLOR,
    REFINED_BOX_COLOR,
    SIDE_COLORS,
    STAR_POINT_COLOR,
    draw_distributions,
    draw_ground_truth,
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
    with pytest.raises(ValueError, match="scale must be at least 1, got 0"):
        draw_instances(image, detections([], [], []), NAMES, scale=0)


def test_colors_are_fixed_and_differ():
    colors = [class_color(i) for i in range(80)]
    assert len(set(colors)) == 80
    assert colors[:2] == [class_color(0), class_color(1)]
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_the_first_colours_suit_the_colour_blind():
    """Those of Okabe and Ito, without black; the next seven are shades of them."""
    assert class_color(0) == (0, 114, 178)
    assert class_color(6) == (240, 228, 66)
    assert class_color(7) != class_color(0)


class TestLabels:
    """They do not hide what they name, nor each other, where there is room."""

    LIMITS = (160, 120)

    def place(self, boxes: list[list[float]], sizes: list[tuple[float, float]]) -> np.ndarray:
        return place_labels(np.array(boxes, float), np.array(sizes, float), self.LIMITS)

    def overlaps(self, strips: np.ndarray) -> int:
        corner = np.minimum(strips[:, None, 2:], strips[None, :, 2:])
        common = (corner - np.maximum(strips[:, None, :2], strips[None, :, :2])).clip(0)
        return int(np.triu(common.prod(-1), 1).astype(bool).sum())

    def test_one_lies_above_its_box(self):
        assert self.place([[40, 50, 100, 90]], [(30, 12)]).tolist() == [[40, 38, 70, 50]]

    def test_at_the_top_it_lies_below(self):
        (strip,) = self.place([[40, 5, 60, 25]], [(30, 12)])
        assert strip.tolist() == [40, 25, 70, 37]

    def test_where_a_box_fills_the_image_it_lies_inside(self):
        (strip,) = self.place([[0, 0, 160, 120]], [(30, 12)])
        assert strip[:2].min() >= 0
        assert strip[2] <= 160
        assert strip[3] <= 120

    def test_equal_boxes_have_labels_apart(self):
        strips = self.place([[40, 50, 100, 90]] * 6, [(30, 12)] * 6)
        assert self.overlaps(strips) == 0

    def test_a_crowd_has_labels_apart(self):
        boxes = [[x, y, x + 24, y + 22] for y in (20, 48, 76) for x in range(4, 150, 30)]
        strips = self.place(boxes, [(22, 10)] * 15)
        assert self.overlaps(strips) == 0
        for strip in strips:
            touched = [
                x0 <= strip[2] and x1 >= strip[0] and y0 <= strip[3] and y1 >= strip[1]
                for x0, y0, x1, y1 in boxes
            ]
            assert any(touched)

    def test_a_neighbour_is_not_hidden(self):
        """Above the second box is the first one, so its label goes below."""
        strips = self.place([[40, 20, 70, 40], [40, 41, 70, 61]], [(30, 12)] * 2)
        assert strips.tolist() == [[40, 8, 70, 20], [40, 61, 70, 73]]

    def test_a_thousand_are_all_there(self, image):
        rng = np.random.default_rng(0)
        corner = rng.random((1000, 2)) * (140, 100)
        boxes = np.concatenate([corner, corner + rng.random((1000, 2)) * 20], axis=1)
        found = detections(boxes.tolist(), [i % 3 for i in range(1000)], [0.5] * 1000)
        assert (draw_instances(image, found, NAMES) != image).mean() > 0.9

    def test_no_object_is_hidden_in_an_enlarged_image(self, image):
        scale = display_scale(120, 160)
        box = [40.0, 50.0, 60.0, 70.0]
        drawn = draw_instances(image, detections([box], [1], [0.9]), NAMES, scale=scale)
        assert scale == 4
        assert drawn.shape == (480, 640, 3)
        assert (drawn[205:275, 165:235] == 128).all()
        assert tuple(drawn[240, 160]) == class_color(1)

    def test_small_boxes_have_smaller_labels(self):
        image = np.full((480, 640, 3), 128, np.uint8)

        def rows(width: float) -> int:
            found = detections([[300.0, 200, 300 + width, 240]], [0], [0.9])
            drawn = draw_instances(image, found, ["a long class name"])
            return int((drawn[:200, 310] != 128).any(-1).sum())

        assert 9 <= rows(20) < rows(300)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((120, 160), 4), ((480, 640), 1), ((479, 640), 2), ((1, 3000), 1), ((8, 400), 4)],
)
def test_scale_for_display(size: tuple[int, int], scale: int):
    assert display_scale(*size) == scale


def test_ground_truth(image):
    truth = Instances((120, 160))
    truth.gt_boxes = Boxes(torch.tensor([[40.0, 50, 100, 90]]))
    truth.gt_classes = torch.tensor([2])
    drawn = draw_ground_truth(image, truth, NAMES, scale=2)
    assert drawn.shape == (240, 320, 3)
    assert tuple(drawn[140, 80]) == class_color(2)


def test_jpegs_keep_thin_lines(image, tmp_path):
    found = detections([[40, 50, 100, 90]], [4], [0.9])
    drawn = draw_instances(image, found, NAMES + ["d", "e"], line_width=1)
    save_image(Image.fromarray(drawn), tmp_path / "a.JPG")
    save_image(Image.fromarray(drawn), tmp_path / "a.png")
    assert (np.asarray(Image.open(tmp_path / "a.png")) == drawn).all()
    with Image.open(tmp_path / "a.JPG") as written:
        assert [layer[1:3] for layer in written.layer] == [(1, 1)] * 3  # no subsampling
        line = np.asarray(written)[60:85, 40].astype(int)
    assert abs(line - class_color(4)).max() < 25
    with pytest.raises(ValueError, match="unknown file extension"):
        save_image(Image.fromarray(drawn), tmp_path / "a.nothing")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.JPG", "a.png"]


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


def lines(drawn: np.ndarray) -> np.ndarray:
    """(H, W) bool: lines of the curves."""
    return np.any([(drawn == color).all(-1) for color in SIDE_COLORS], axis=0)


class TestDistributions:
    """A box from (48, 36) to (112, 84) around (80, 60): 4 and 3 bins of 8 px."""

    BOX = (48.0, 36.0, 112.0, 84.0)

    def draw(self, image, probabilities, **options) -> np.ndarray:
        found = with_distributions([list(self.BOX)], (80, 60), probabilities)
        return draw_distributions(image, found, NAMES, line_width=1, curve_height=20, **options)

    def test_certain_sides_are_peaks_at_the_sides(self, image):
        drawn = self.draw(image, sure([4, 3, 4, 3]))
        peaks = lines(drawn)
        for x in (48, 112):  # they rise from the middle of the side; the lines at 56 are bases
            assert peaks[60 - 19, x - 1 : x + 2].any()
            assert not peaks[60 - 19, [x - 5, x + 5]].any()
        assert peaks[83:86, 80 + 19].any()
        assert tuple(drawn[70, 48]) == class_color(0)

    def test_each_side_has_a_colour(self, image):
        drawn = self.draw(image, sure([4, 3, 4, 3]))
        peaks = ((60 - 19, 48), (36, 80 + 19), (60 - 19, 112), (84, 80 + 19))
        for color, (y, x) in zip(SIDE_COLORS, peaks, strict=True):
            near = drawn[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
            assert (near == color).all(1).any()
        assert len(set(SIDE_COLORS)) == 4

    def test_an_unclear_side_is_low_and_broad(self, image):
        unclear = sure([4, 3, 4, 3])
        unclear[0, 0] = 1 / 9  # the mean is bin 4, as before
        drawn = lines(self.draw(image, unclear))
        assert not drawn[60 - 19 : 60 - 5, :80].any()
        columns = np.flatnonzero(drawn[57:60, :80].any(0))
        assert columns.min() == 80 - 8 * STEP  # bin 8
        assert drawn[60 - 19, 111:114].any()  # the other side is as sure as it was

    def test_height_is_probability(self, image):
        half = sure([4, 3, 4, 3])
        half[0, 0] = 0
        half[0, 0, [3, 5]] = 0.5
        drawn = lines(self.draw(image, half))
        for x in (40, 56):
            assert drawn[60 - 10, x - 1 : x + 2].any()
            assert not drawn[: 60 - 11, x].any()

    def test_a_side_beyond_the_picture_does_not_shift_the_others(self, image):
        probabilities = sure([4, 3, 4, 3])
        found = with_distributions([[-12.0, 36, 52, 84]], (20, 60), probabilities)
        assert found.pred_boxes.tensor[0, 0] == 0
        drawn = lines(draw_distributions(image, found, NAMES, line_width=1, curve_height=20))
        assert drawn[60 - 19, 51:54].any()
        assert not drawn[60 - 19, :20].any()  # the cut side peaks outside

    def test_the_two_directions_may_have_other_scales(self, image):
        """As in a picture that was not resized equally."""
        found = with_distributions([[64.0, 36, 96, 84]], (80, 60), sure([4, 3, 4, 3]))
        found.side_intervals = torch.tensor([[4.0, 8.0, 4.0, 8.0]])
        drawn = lines(draw_distributions(image, found, NAMES, line_width=1, curve_height=20))
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
