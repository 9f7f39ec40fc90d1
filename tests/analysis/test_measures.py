"""Curves, confusion and calibration, counted by hand; a perfect detector and one that lies."""

import numpy as np
import pytest
from benchmarks.plain_coco import plain_curves
from scored_data import Row, detections, random_scored, truth
from vfnet_yolof.analysis.matches import IGNORED, IOUS, NONE, match
from vfnet_yolof.analysis.measures import (
    calibration,
    class_curves,
    image_counts,
    outcome,
)
from vfnet_yolof.analysis.precision import AveragePrecision, mean_ap, ranked
from vfnet_yolof.analysis.scored import Scored, truth_of_rows
from vfnet_yolof.evaluation.coco_ap import DetectionArrays
from vfnet_yolof.evaluation.ground_truth import GroundTruth

BOX = [100.0, 100.0, 100.0, 100.0]
FAR = [400.0, 400.0, 50.0, 50.0]


def six_boxes() -> Scored:
    """Six boxes of two classes in three images; see :func:`test_six_boxes`."""
    boxes: list[Row] = [
        *[(0, 0, BOX), (0, 1, FAR), (1, 0, BOX), (1, 0, FAR)],
        *[(2, 1, BOX), (2, 1, FAR)],
    ]
    found = [
        (0, 0, BOX, 0.9),  # hit
        (0, 0, [100.0, 100.0, 100.0, 80.0], 0.8),  # duplicate
        (0, 1, FAR, 0.3),  # hit
        (1, 0, BOX, 0.7),  # hit
        (1, 1, FAR, 0.6),  # class 0 taken for class 1
        (2, 1, [250.0, 250.0, 20.0, 20.0], 0.5),  # background
        (2, 1, [100.0, 100.0, 100.0, 60.0], 0.4),  # hit with IoU 0.6
    ]
    return Scored(truth(boxes, images=3, classes=2), detections(found))


def test_six_boxes() -> None:
    matches = match(six_boxes()).at(0.5)
    first, second, everything = class_curves(matches)
    # class 0: hit 0.9, duplicate 0.8, hit 0.7 of three boxes
    assert first.scores.tolist() == [0.9, 0.8, 0.7]
    assert first.precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert first.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert first.f1 == pytest.approx([2 / 4, 2 / 5, 4 / 6])
    assert first.best == pytest.approx((0.7, 2 / 3, 2 / 3, 2 / 3))
    # class 1: wrong 0.6, wrong 0.5, hit 0.4, hit 0.3 of three boxes
    assert second.precision == pytest.approx([0, 0, 1 / 3, 2 / 4])
    assert second.best == pytest.approx((0.3, 4 / 7, 2 / 4, 2 / 3))
    assert everything.precision[-1] == pytest.approx(4 / 7)
    assert everything.recall[-1] == pytest.approx(4 / 6)
    precision, recall, f1 = first.at(np.array([0.95, 0.75, 0.0]))
    assert np.isnan(precision[0]) and recall[0] == f1[0] == 0
    assert precision[1:] == pytest.approx([1 / 2, 2 / 3])

    result = outcome(matches, np.array([0.0, 0.0]))
    assert result.confusion.tolist() == [[2, 1, 0], [0, 2, 1], [1, 1, 0]]
    counts = image_counts(matches, result)
    assert counts.hits.tolist() == [2, 1, 1]
    assert counts.misses.tolist() == [0, 1, 1]
    assert counts.false.tolist() == [1, 1, 1]
    result = outcome(matches, np.array([0.85, 0.45]))
    assert result.confusion.tolist() == [[1, 1, 1], [0, 0, 3], [0, 1, 0]]
    strict = match(six_boxes()).at(0.75)
    assert outcome(strict, np.zeros(2)).confusion.tolist() == [[2, 1, 0], [0, 1, 2], [1, 2, 0]]


def test_calibration_by_hand() -> None:
    found = calibration(match(six_boxes()).at(0.5))
    assert found.counts.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    # scores 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3: hits 1, 0, 1, 0, 0, 1, 1
    assert found.precision_error == pytest.approx((0.1 + 0.8 + 0.3 + 0.6 + 0.5 + 0.6 + 0.7) / 7)
    # IoU with the box of the class: 1, 0.8, 1, 0, 0, 0.6, 1
    assert found.iou_error == pytest.approx((0.1 + 0 + 0.3 + 0.6 + 0.5 + 0.2 + 0.7) / 7)


def perfect(scored: Scored, scores: np.ndarray) -> Scored:
    ground = scored.truth
    return Scored(ground, DetectionArrays(ground.images, ground.classes, ground.boxes, scores))


def test_a_perfect_detector() -> None:
    scored = random_scored(5, crowds=False)
    matches = match(perfect(scored, np.ones(len(scored.truth.classes))))
    assert mean_ap(AveragePrecision(ranked(matches))()) == pytest.approx(100)
    found = calibration(matches.at(0.5))
    assert (found.precision_error, found.iou_error) == pytest.approx((0, 0), abs=1e-12)
    confusion = outcome(matches.at(0.5), np.full(4, 0.5)).confusion
    assert np.array_equal(confusion, np.diag(np.diag(confusion)))


def test_calibration_tells_of_shuffled_scores() -> None:
    """Scores that are the IoU are calibrated; the same ones dealt out anew are not."""
    scored = random_scored(7, images=60, crowds=False)
    iou = match(scored).same_class.best(len(scored))[0]
    honest = DetectionArrays(scored.images, scored.classes, scored.boxes, iou)
    shuffled = honest._replace(scores=np.random.default_rng(0).permutation(iou))
    told, lied = (calibration(match(Scored(scored.truth, x)).at(0.5)) for x in (honest, shuffled))
    assert told.iou_error == pytest.approx(0, abs=1e-12)
    assert told.rank_correlation == pytest.approx(1)
    assert lied.iou_error > 0.2
    assert abs(lied.rank_correlation) < 0.1


@pytest.mark.parametrize("max_dets", [100, 4])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_pycocotools(seed: int, max_dets: int) -> None:
    """Of a data set as it is, and of one in which images occur several times or not at all."""
    scored = random_scored(seed)
    ground, k = scored.truth, len(scored.truth.class_names)
    assert ground.crowds.any() and (match(scored).box == IGNORED).any()
    found = DetectionArrays(scored.images, scored.classes, scored.boxes, scored.scores)
    few = Scored(ground, found, max_dets)
    ap = AveragePrecision(ranked(match(few)))
    want = plain_curves(ground.as_dicts(), found, k, len(ground.image_ids), max_dets)
    assert ap() == pytest.approx(want.precision[..., 0].mean(axis=1), abs=1e-9)
    weights = np.random.default_rng(seed).integers(0, 4, len(ground.image_ids))
    weights[0] = 1  # every class has a box there
    drawn = np.repeat(np.arange(len(weights)), weights)
    rows = [np.flatnonzero(found.images == image) for image in drawn]
    again = DetectionArrays(
        np.repeat(np.arange(len(drawn)), [len(x) for x in rows]),
        *(column[np.concatenate(rows)] for column in found[1:]),
    )
    boxes = [
        {**box, "image_id": number}
        for number, image in enumerate(drawn.tolist())
        for box in ground.as_dicts()
        if box["image_id"] == image
    ]
    want = plain_curves(boxes, again, k, len(drawn), max_dets)
    got = ap(weights.astype(np.float64))
    assert got == pytest.approx(want.precision[..., 0].mean(axis=1), abs=1e-9)


def test_a_box_is_found_once_and_crowds_excuse() -> None:
    ground = truth([(0, 0, BOX), (0, 0, [300.0, 0.0, 90.0, 90.0])], images=1, classes=1)
    ground.crowds[1] = True
    inside = [310.0, 10.0, 20.0, 20.0]
    rows = [(0, 0, BOX, 0.9), (0, 0, BOX, 0.8), (0, 0, inside, 0.7), (0, 0, inside, 0.6)]
    matches = match(Scored(ground, detections(rows)))
    assert matches.box[0].tolist() == [0, NONE, IGNORED, IGNORED]
    assert len(matches.ious) == len(IOUS)


def test_ground_truth_of_an_evaluation() -> None:
    ground = truth([(0, 0, BOX), (1, 1, FAR)], images=2, classes=2)
    rows = GroundTruth(
        ground.image_ids, ground.category_ids, ground.class_names, ground.as_dicts(), True
    )
    again = truth_of_rows("test", rows)
    assert np.array_equal(again.boxes, ground.boxes) and np.array_equal(again.areas, ground.areas)
