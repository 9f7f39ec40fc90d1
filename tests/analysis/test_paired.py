"""Two detectors on the same images: told apart where they differ, and not where they do not."""

import json
from pathlib import Path

import numpy as np
import pytest
from scored_data import found_of, random_scored, write_files
from vfnet_yolof.analysis.paired import compared
from vfnet_yolof.analysis.report import Report, analyse
from vfnet_yolof.cli.main import main

Output = pytest.CaptureFixture[str]


def reports(change) -> tuple[Report, Report]:
    """Of a detector and of one whose detections are changed."""
    scored = random_scored(4, images=60)
    found = found_of(scored)
    return analyse(scored.truth, found), analyse(scored.truth, change(found))


def moved(found):
    boxes = found.boxes.copy()
    boxes[:, 0] += 15
    return found._replace(boxes=boxes)


def test_a_worse_detector_is_told() -> None:
    first, second = reports(moved)
    result = compared((first, second), ("good", "moved"), 200)
    assert result.ap == pytest.approx((first.ap(), second.ap()))
    assert result.difference.high < 0
    assert result.difference.low < result.difference.value < result.difference.high
    assert result.verdict.startswith("moved is worse than good: AP ")
    assert all(interval is not None and interval.value < 0 for interval in result.classes)
    swapped = compared((second, first), ("moved", "good"), 200)
    assert swapped.verdict.startswith("good is better than moved: AP ")
    assert swapped.difference.low == pytest.approx(-result.difference.high)
    assert np.array_equal(swapped.disagreement, result.disagreement)
    assert compared((first, second), ("good", "moved"), 200).difference == result.difference


def test_equal_detectors_are_not_told_apart() -> None:
    same = compared(reports(lambda found: found), ("a", "b"), 100)
    assert (same.difference.low, same.difference.value, same.difference.high) == (0, 0, 0)
    assert "are not told apart" in same.verdict
    assert not same.disagreement.any()
    noise = np.random.default_rng(0)

    def jittered(found):
        return found._replace(boxes=found.boxes + noise.normal(0, 0.5, found.boxes.shape))

    close = compared(reports(jittered), ("a", "b"), 200)
    assert close.difference.low < 0 < close.difference.high
    with pytest.raises(ValueError, match="--resamples must be at least 100"):
        compared(reports(moved), ("a", "b"), 10)


def test_the_interval_is_the_spread_over_samples() -> None:
    """Half of the images in turn: the difference varies as the interval says, within a factor."""
    scored = random_scored(9, images=400, classes=2)
    found = found_of(scored)
    first, second = analyse(scored.truth, found), analyse(scored.truth, moved(found))
    result = compared((first, second), ("a", "b"), 300)
    assert result.difference.high - result.difference.low == pytest.approx(
        2 * 1.96 * _spread_of_parts(scored.truth, found), rel=0.6
    )


def _spread_of_parts(truth, found, parts: int = 10) -> float:
    """Standard error of the whole set's difference, from the differences of its tenths."""
    from vfnet_yolof.analysis.matches import match
    from vfnet_yolof.analysis.precision import AveragePrecision, mean_ap, ranked
    from vfnet_yolof.analysis.scored import Scored

    a, b = (AveragePrecision(ranked(match(Scored(truth, x)))) for x in (found, moved(found)))
    which = np.arange(len(truth.image_ids)) % parts
    each = [
        mean_ap(b((which == part).astype(float))) - mean_ap(a((which == part).astype(float)))
        for part in range(parts)
    ]
    return float(np.std(each, ddof=1) / np.sqrt(parts))


def test_results_files(tmp_path: Path, capsys: Output) -> None:
    folder = write_files(tmp_path, random_scored(1))
    rows = json.loads((folder / "results.json").read_text())
    for row in rows:
        row["bbox"][0] += 20
    (folder / "moved.json").write_text(json.dumps(rows))
    pair = ["compare", str(folder / "results.json"), str(folder / "moved.json")]
    given = ["--annotations", str(folder / "truth.json"), "--resamples", "100"]
    assert (
        main([*pair, *given, "--output", str(folder / "out"), "--images", str(folder / "images")])
        == 0
    )
    said = capsys.readouterr().out
    assert "moved.json is worse than" in said.splitlines()[-1]
    content = json.loads((folder / "out" / "comparison.json").read_text())
    assert content["verdict"] == said.splitlines()[-1]
    page = (folder / "out" / "comparison.html").read_text()
    assert page.count("data:image/jpeg") >= 10 and "http" not in page
    assert main(pair) == 2
    assert "--annotations is missing" in capsys.readouterr().err
    assert main([*pair[:2], *given]) == 2
    assert "Name two results files" in capsys.readouterr().err
    assert main([*pair, "gfl/gfl_small.py", *given]) == 2
