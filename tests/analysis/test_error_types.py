"""TIDE's error types against `tidecv`, and against what a person counts."""

import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from scored_data import detections, random_scored, truth
from vfnet_yolof.analysis import precision
from vfnet_yolof.analysis.error_types import HIT, KINDS, error_types
from vfnet_yolof.analysis.matches import match
from vfnet_yolof.analysis.scored import Scored

BOX = [100.0, 100.0, 100.0, 100.0]


def tidecv_errors(scored: Scored) -> tuple[float, dict[str, float]]:
    """AP at IoU 0.5 and the AP lost by each kind, by the authors' tool."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("appdirs", "pandas", "seaborn"):  # for its plots and data, unused here
            patch.setitem(sys.modules, module, MagicMock())
        tidecv = pytest.importorskip("tidecv")
    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    ground = scored.truth
    for image in range(len(ground.image_ids)):
        truth.add_image(image, str(image))
    for image, k, box, crowd in zip(
        ground.images, ground.classes, ground.boxes, ground.crowds, strict=True
    ):
        add = truth.add_ignore_region if crowd else truth.add_ground_truth
        add(int(image), int(k), box.tolist())
    by_image = np.lexsort((-scored.scores, scored.images))
    for row in by_image:
        found.add_detection(
            int(scored.images[row]),
            int(scored.classes[row]),
            float(scored.scores[row]),
            scored.boxes[row].tolist(),
        )
    run = tidecv.TIDE().evaluate(truth, found, mode=tidecv.TIDE.BOX)
    lost = {x.short_name: value for x, value in run.fix_main_errors().items()}
    special = {x.short_name: value for x, value in run.fix_special_errors().items()}
    return run.ap, {**lost, "FP": special["FalsePos"], "FN": special["FalseNeg"]}


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_tidecv(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # It reads the curve at i / 100; COCO's code, and so this one, at float64's multiples of 0.01.
    monkeypatch.setattr(precision, "RECALLS", np.arange(101) / 100)
    scored = random_scored(seed)
    ap, lost = tidecv_errors(scored)
    ours = error_types(match(scored))
    assert ours.ap == pytest.approx(ap, abs=1e-6)
    assert dict(ours.lost) == pytest.approx(lost, abs=1e-6)
    assert sum(value > 0.1 for value in lost.values()) >= 6


def six_boxes() -> Scored:
    """One box of class 0 in each of six images, and one kind of mistake in each of five."""
    boxes = [(image, 0, BOX) for image in range(6)]
    boxes.append((5, 1, [300.0, 300.0, 50.0, 50.0]))  # so that class 1 exists
    found = [
        (0, 0, BOX, 0.95),  # a hit
        (0, 0, [100.0, 100.0, 100.0, 90.0], 0.90),  # Dupe: IoU 0.9
        (1, 0, [100.0, 100.0, 100.0, 40.0], 0.85),  # Loc: IoU 0.4
        (2, 1, BOX, 0.80),  # Cls
        (3, 1, [100.0, 100.0, 100.0, 40.0], 0.75),  # Both
        (4, 0, [400.0, 400.0, 50.0, 50.0], 0.70),  # Bkg
        (5, 1, [300.0, 300.0, 50.0, 50.0], 0.99),  # a hit
    ]
    return Scored(truth(boxes, images=6, classes=2), detections(found))


def test_six_boxes_counted_by_hand() -> None:
    scored = six_boxes()
    errors = error_types(match(scored))
    by_image = {
        (int(i), float(s)): "hit" if k == HIT else KINDS[k]
        for i, s, k in zip(scored.images, scored.scores, errors.kind, strict=True)
    }
    assert by_image == {
        (0, 0.95): "hit",
        (0, 0.90): "Dupe",
        (1, 0.85): "Loc",
        (2, 0.80): "Cls",
        (3, 0.75): "Both",
        (4, 0.70): "Bkg",
        (5, 0.99): "hit",
    }
    assert errors.counts == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 1, "Miss": 3}
    # Class 0: one of six boxes, recalls 0 to 0.16 at precision 1. Class 1: all.
    assert errors.ap == pytest.approx(50 * (17 / 101 + 1))
    # Loc: then two hits and, between them, the duplicate: 17 recalls at 1, 17 at 2/3.
    assert errors.lost["Loc"] == pytest.approx(50 * 17 / 101 * 2 / 3)
    # Cls: a second hit in class 0, third in its order (0.95, 0.90, 0.85, 0.80): precision 2/4.
    assert errors.lost["Cls"] == pytest.approx(50 * 17 / 101 / 2)
    # Dupe, Both and Bkg stand behind all hits of their classes and cost nothing.
    assert [errors.lost[kind] for kind in ("Dupe", "Both", "Bkg")] == [0, 0, 0]
    # Miss: three boxes fewer, one of three found: recalls 0 to 0.33.
    assert errors.lost["Miss"] == pytest.approx(50 * (34 - 17) / 101)
    assert errors.lost["FP"] == pytest.approx(0)
    assert errors.lost["FN"] == pytest.approx(50 * (101 - 17) / 101)


def test_a_perfect_detector_has_no_errors() -> None:
    scored = random_scored(3, crowds=False)
    ground = scored.truth
    perfect = [
        (int(i), int(k), box.tolist(), 1.0)
        for i, k, box in zip(ground.images, ground.classes, ground.boxes, strict=True)
    ]
    errors = error_types(match(Scored(ground, detections(perfect))))
    assert errors.ap == pytest.approx(100)
    assert all(value == pytest.approx(0) for value in errors.lost.values())
    assert not any(errors.counts.values())


def test_a_class_that_is_only_detected_differs_from_tidecv() -> None:
    """COCO's mean is over annotated classes; `tidecv` counts the other class with an AP of 0."""
    found = detections([(0, 0, BOX, 0.9), (0, 1, [300.0, 300.0, 9.0, 9.0], 0.8)])
    scored = Scored(truth([(0, 0, BOX)], images=1, classes=2), found)
    assert error_types(match(scored)).ap == pytest.approx(100)
    assert tidecv_errors(scored)[0] == pytest.approx(50)


def test_without_detections() -> None:
    scored = Scored(truth([(0, 0, BOX)], images=1, classes=1), detections([]))
    errors = error_types(match(scored))
    assert errors.ap == 0
    assert errors.counts["Miss"] == 1


def test_a_crowd_region_is_no_box_to_localise() -> None:
    """Where `hotcoco` 1.3 differs: it counts 30 % in a crowd as Loc, this and `tidecv` as Bkg.

    No position of that detection would make it right, so no localisation is at fault.
    """
    ground = truth([(0, 0, BOX), (0, 0, [300.0, 300.0, 200.0, 200.0])], images=1, classes=1)
    ground.crowds[1] = True
    beside = [230.0, 300.0, 100.0, 100.0]  # 30 of its 100 px lie in the crowd region
    scored = Scored(ground, detections([(0, 0, beside, 0.9), (0, 0, BOX, 0.8)]))
    errors = error_types(match(scored))
    assert (errors.counts["Bkg"], errors.counts["Loc"]) == (1, 0)
    assert errors.lost["Bkg"] == pytest.approx(50)
    assert tidecv_errors(scored)[1]["Bkg"] == pytest.approx(50)


def test_the_recalls_are_those_of_pycocotools() -> None:
    """57 of 100 boxes found: float64's 57 * 0.01 is above 57 / 100, so `tidecv` has a step more."""
    boxes = [(0, 0, [20.0 * i, 0.0, 10.0, 10.0]) for i in range(100)]
    found = [(0, 0, box, 0.9 - 0.001 * i) for i, (_, _, box) in enumerate(boxes[:57])]
    scored = Scored(truth(boxes, images=1, classes=1), detections(found))
    assert error_types(match(scored)).ap == pytest.approx(100 * 57 / 101)
    assert tidecv_errors(scored)[0] == pytest.approx(100 * 58 / 101)
