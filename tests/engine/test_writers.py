"""metrics.json is JSON, and the console shows present values."""

import json
import logging

import numpy as np
import pytest
from detectron2.utils.events import EventStorage
from engine_toy import ToyEvaluator
from vfnet_yolof.engine.ending import OutputError
from vfnet_yolof.engine.writers import ConsoleWriter, JSONLinesWriter, append_metrics


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_what_cannot_be_measured_is_null(tmp_path):
    path = tmp_path / "metrics.json"
    values = {"a": float("nan"), "b": np.float64("inf"), "c": -float("inf"), "d": 1.5, "tta": True}
    append_metrics(path, values)
    append_metrics(path, {"iteration": 7})
    assert strict(path.read_text()) == [
        {"a": None, "b": None, "c": None, "d": 1.5, "tta": True},
        {"iteration": 7},
    ]


def test_every_line_of_a_run_is_strict_json(toy, monkeypatch):
    """Also where an evaluation has nothing to measure a figure on."""
    monkeypatch.setattr(
        ToyEvaluator, "evaluate", lambda self: {"toy": {"score": 1.0, "APl": float("nan")}}
    )
    assert toy.run() == 0
    assert toy.run("--eval-only") == 0
    lines = strict((toy.output_dir / "metrics.json").read_text())
    assert [x["toy/APl"] for x in lines if "toy/APl" in x] == [None] * 4
    assert [x["iteration"] for x in lines if "total_loss" in x] == [1, 3, 5, 7, 9, 11]


def test_figures_of_one_iteration_share_a_line_and_are_written_once(tmp_path):
    writer = JSONLinesWriter(tmp_path / "metrics.json")
    with EventStorage(0) as storage:
        for storage.iter in range(4):
            storage.put_scalars(loss=float(storage.iter))
            if storage.iter == 1:
                storage.put_scalars(score=0.5, smoothing_hint=False)
            if storage.iter % 2:
                writer.write()
        writer.write()
    assert strict((tmp_path / "metrics.json").read_text()) == [
        {"iteration": 1, "loss": 0.5, "score": 0.5},
        {"iteration": 3, "loss": 1.5},
    ]


@pytest.fixture
def lines():
    shown = []

    class Shown(logging.Handler):
        def emit(self, record):
            shown.append(record.getMessage())

    logger = logging.getLogger("detectron2.vfnet_yolof.engine.writers")
    handler, level = Shown(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield shown
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_the_console_shows_the_present_validation_loss_once(lines):
    """And not the median of all that came before."""
    writer = ConsoleWriter(max_iter=100)
    with EventStorage(0) as storage:
        for storage.iter, validated in enumerate((9.0, 5.0, 1.0, None)):
            storage.put_scalars(total_loss=2.0 + storage.iter, time=0.5)
            if validated is not None:
                storage.put_scalars(**{"val_loss/total_loss": validated}, smoothing_hint=False)
            writer.write()
    shown = [line.partition("val_loss/total_loss: ")[2].split("  ")[0] for line in lines]
    assert shown == ["9", "5", "1", ""]
    assert lines[2].startswith("eta: 0:00:48  iter: 2  total_loss: 3  ")  # median of 2, 3, 4


def test_a_line_that_cannot_be_written_names_the_file_and_the_cause(tmp_path):
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(OutputError, match=r"Cannot write .*metrics\.json: Is a directory"):
        append_metrics(tmp_path / "metrics.json", {"a": 1})


def test_the_console_shows_epoch_and_present_ap_but_not_those_of_classes(lines):
    writer = ConsoleWriter(max_iter=100, iterations_per_epoch=2.0)
    with EventStorage(0) as storage:
        for storage.iter, measured in enumerate((9.0, 5.0, None)):
            storage.put_scalars(total_loss=2.0)
            if measured is not None:
                metrics = {"bbox/AP": measured, "bbox/AP-disc": 7.0, "swa/bbox/AP": measured + 1}
                storage.put_scalars(**metrics, smoothing_hint=False)
            writer.write()
    assert lines == [
        "eta: N/A  iter: 0  epoch: 0.5  total_loss: 2  bbox/AP: 9  swa/bbox/AP: 10",
        "eta: N/A  iter: 1  epoch: 1  total_loss: 2  bbox/AP: 5  swa/bbox/AP: 6",
        "eta: N/A  iter: 2  epoch: 1.5  total_loss: 2",
    ]
