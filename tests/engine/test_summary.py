"""What a run leaves for its reader: summary, curves, drawn validation images, next commands."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from engine_toy import toy_records
from PIL import Image
from vfnet_yolof.data.loader import build_test_loader
from vfnet_yolof.data.shapes import CLASS_NAMES
from vfnet_yolof.engine import run, summary
from vfnet_yolof.engine.evaluation import Evaluation
from vfnet_yolof.engine.examples import draw_examples
from vfnet_yolof.engine.measured import read_metrics
from vfnet_yolof.engine.summary_text import as_markdown, on_console


def summary_of(toy):
    return json.loads((toy.output_dir / "summary.json").read_text())


def test_a_run_is_summed_up(toy, capfd):
    assert toy.run() == 0
    facts = summary_of(toy)
    metrics = read_metrics(toy.output_dir / "metrics.json", 12)
    iterations, scores = metrics.series("toy/score")
    assert iterations == [3, 7, 11]
    best = int(np.argmax(scores))
    assert facts["best"]["value"] == scores[best]
    assert facts["best"]["iteration"] == iterations[best] == toy.load("model_best")["iteration"]
    assert facts["best"]["checkpoint"] == "model_best.pth"
    assert (facts["last"]["value"], facts["last"]["iteration"]) == (scores[-1], 11)
    assert (facts["ended"], facts["iterations"], facts["epochs"]) == ("finished", 12, 4)
    assert facts["data"]["train"]["images"] == 12
    assert facts["data"]["val"]["images"] == 6
    assert (
        facts["model"]["parameters"]
        == sum(x.numel() for name, x in toy.load()["model"].items() if "running" not in name) - 1
    )  # the batch counter is none either
    assert facts["speed"]["images_per_second"] > 0
    assert facts["speed"]["peak_memory_mib"] > 1
    for name in ("losses.png", "ap.png"):
        assert Image.open(toy.output_dir / name).size == (960, 540)
    said = capfd.readouterr().out
    page = (toy.output_dir / "summary.md").read_text()
    for command in facts["commands"].values():
        assert command in said
        assert f"    {command}\n" in page


def test_the_commands_are_those_of_the_shell(make_toy, capfd):
    """Also where the folder's name has a space, and the run's config parts of the user's own."""
    from vfnet_yolof.cli.main import main

    toy = make_toy("my run")
    assert toy.run("train.max_iter=2", "train.eval_period=0") == 0
    commands = summary_of(toy)["commands"]
    evaluate = shlex.split(commands["evaluate"])
    assert evaluate == ["vfnet-yolof", "evaluate", str(toy.output_dir), "--trust-config"]
    assert main([*evaluate[1:], "--device", "cpu"]) == 0
    train_on = shlex.split(commands["continue"])
    assert train_on[-2:] == ["train.max_iter=4", "--trust-config"]
    assert main([*train_on[1:], "--device", "cpu"]) == 0
    facts = summary_of(toy)
    assert (facts["iterations"], facts["speed"]["first_iteration_of_session"]) == (4, 2)
    predict = shlex.split(commands["predict"])
    assert predict[2] == str(toy.output_dir / "model_best.pth")


def test_a_run_that_was_stopped_has_a_summary(toy):
    assert toy.start(TOY_TERM_AT="6").returncode == 143
    facts = summary_of(toy)
    assert (facts["ended"], facts["iterations"], facts["max_iter"]) == ("stopped", 6, 12)
    assert "train.max_iter" not in facts["commands"]["continue"]
    assert facts["last"]["iteration"] == 3


def test_without_a_validation_set_it_says_what_is_missing(toy, tmp_path, capfd):
    config = tmp_path / "untested.py"
    config.write_text(
        Path(toy.config).read_text() + "\ndataloader['test'] = dict(mapper=toy_mapper)\n"
        "train['eval_period'] = 0\n"
    )
    toy.config = str(config)
    assert toy.run("train.max_iter=2") == 0
    facts = summary_of(toy)
    assert facts["best"] is facts["last"] is None
    assert "evaluate" not in facts["commands"]
    assert facts["commands"]["predict"].split()[2].endswith("model_final.pth")
    said = capfd.readouterr().out
    assert said.count("There is no validation set, so there will be no AP and no best check") == 1
    assert said.count("There is no validation set, so no AP and no best checkpoint. --data ") == 1
    assert not (toy.output_dir / "ap.png").exists()


def test_a_summary_that_fails_costs_nothing_that_was_trained(toy, monkeypatch, capfd):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "draw_curves", full)
    assert toy.run("train.max_iter=2", "train.eval_period=0") == 4
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: {toy.output_dir}/losses.png cannot be written: ")
    assert toy.load()["iteration"] == 1


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (summary, "draw_curves", "The summary has no curves: no such luck"),
        (run, "write_summary", "The training is saved, but has no summary: no such luck"),
    ],
)
def test_a_mistake_in_the_summary_is_said_and_no_more(toy, monkeypatch, capfd, module, name, said):
    def fail(*_, **__):
        raise ValueError("no such luck")

    monkeypatch.setattr(module, name, fail)
    assert toy.run("train.max_iter=2", "train.eval_period=0") == 0
    assert said in capfd.readouterr().out
    assert (toy.output_dir / "summary.md").is_file() == (name == "draw_curves")


def test_evaluations_afterwards_are_no_part_of_the_run(toy):
    assert toy.run("train.max_iter=4") == 0
    path = toy.output_dir / "metrics.json"
    before = read_metrics(path, 4)
    assert toy.run("--eval-only") == 0
    assert json.loads(path.read_text().splitlines()[-1])["evaluated"].endswith("model_best.pth")
    assert read_metrics(path, 4) == before


def test_resumed_runs_have_each_evaluation_once(toy):
    assert toy.run("train.max_iter=6") == 0
    assert toy.run("--resume", "train.max_iter=12") == 0
    iterations, _ = read_metrics(toy.output_dir / "metrics.json", 12).series("toy/score")
    assert iterations == [3, 6, 7, 11]  # 6: at the end of the first session


@pytest.fixture
def pictures(tmp_path):
    """Records of 23 images, each with one box; the last one's name is not plain."""
    records = []
    for number in range(23):
        path = tmp_path / (f"{number}.png" if number < 22 else "zwei Äpfel.png")
        Image.new("RGB", (64 + number, 48), (number * 10, 80, 90)).save(path)
        box = {"bbox": [4, 4, 30, 30], "bbox_mode": 0, "category_id": number % 6}
        crowd = {"bbox": [0, 0, 60, 40], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
        records.append(
            {"file_name": str(path), "height": 48, "width": 64 + number, "image_id": number}
            | {"annotations": [box, crowd]}
        )
    return records


class FirstClass(torch.nn.Module):
    """One sure detection of class 0 and an unsure one, in each image."""

    def forward(self, batch):
        assert not self.training
        found = Instances((batch[0]["height"], batch[0]["width"]))
        found.pred_boxes = Boxes(torch.tensor([[4.0, 4.0, 30.0, 30.0], [0.0, 0.0, 60.0, 40.0]]))
        found.scores = torch.tensor([0.9, 0.1])
        found.pred_classes = torch.tensor([0, 1])
        return [{"instances": found}]


def as_input(record):
    plain = {k: v for k, v in record.items() if k != "annotations"}
    return {**plain, "image": torch.zeros(3, record["height"], record["width"])}


class OfRecords(Evaluation):
    """An evaluation of a loader that is given."""

    def __init__(self, records, lookup=None):
        self.loader = build_test_loader(records, as_input)
        self.class_lookup = lookup


def test_validation_images_are_spread_evenly(pictures, tmp_path, monkeypatch):
    drawn = []

    def draw(image, found, names, **options):
        drawn.append((image.shape, found.pred_classes.tolist(), options))
        return np.full([10 * image.shape[0], 10 * image.shape[1], 3], 250, np.uint8)

    monkeypatch.setattr("vfnet_yolof.engine.examples.draw_instances", draw)
    folder = tmp_path / "validation"
    folder.mkdir()
    (folder / "09_old.jpg").write_text("of an earlier session")
    (folder / "mine.jpg").write_text("the user's")
    model = FirstClass().train()
    evaluation = OfRecords(pictures, lookup=[3, 1])
    assert draw_examples(model, evaluation, CLASS_NAMES, folder) == 10
    assert model.training
    stems = sorted(path.stem for path in folder.iterdir())
    assert stems[0] == "01_0"
    assert stems[-2:] == ["10_zwei_Äpfel", "mine"]
    assert [int(s.split("_")[1]) for s in stems[:9]] == [0, 2, 5, 7, 10, 12, 15, 17, 20]
    assert drawn[0] == ((48, 64, 3), [3, 1], {"score_thresh": 0.3, "scale": 10})
    first = np.asarray(Image.open(folder / "01_0.jpg"))
    top = first.shape[0] - 480
    assert first.shape[1] == 2 * 640 + 8
    assert abs(int(first[top + 400, 100].mean()) - 250) < 4  # detections to the left
    assert np.abs(first[top + 440, -100].astype(int) - [0, 80, 90]).max() < 8  # the image itself
    assert draw_examples(model, evaluation, CLASS_NAMES, folder, seconds=0.0) == 1


def test_records_without_images_are_not_drawn(tmp_path):
    evaluation = OfRecords(toy_records())
    assert draw_examples(FirstClass(), evaluation, CLASS_NAMES, tmp_path / "v") == 0
    assert not (tmp_path / "v").exists()


def test_per_class_figures_and_odd_names():
    facts = {
        **dict(run="out/a b/001", config="a.py", ended="finished", iterations=3, max_iter=3),
        **dict(epochs=None, metric="bbox/AP", last=None, no_ap="", failed_evaluations=None),
        "best": {
            **dict(value=41.234, AP=41.234, AP50=60.0, iteration=2, epoch=None),
            "checkpoint": "model_best.pth",
        },
        "averaged": {"value": 42.0, "checkpoint": "model_swa.pth"},
        "speed": {
            **dict(session_seconds=61.2, first_iteration_of_session=0, training_seconds=None),
            **dict(seconds_per_iteration=None, images_per_second=None, device="CPU"),
            "peak_memory_mib": None,
        },
        "model": {"parameters": 1234567, "weights": "moving averages (EMA)"},
        "data": {"classes": [f"c{i}" for i in range(80)]},
        "per_class": [
            {"class": "a|b", "train_boxes": 3, "val_boxes": None, "AP": 1.0, "AP50": None}
        ],
        "versions": ["torch 2"],
        "commands": {"predict": "vfnet-yolof predict 'out/a b/001/model_best.pth'"},
        "curves": ["ap.png"],
        "validation_images": 10,
    }
    page, short = as_markdown(facts), on_console(facts)
    assert "| a\\|b | 3 | - | 1.00 | - |" in page
    assert "| best | AP 41.23, AP50 60.00 after iteration 2: `model_best.pth` |" in page
    assert "![ap.png](ap.png)" in page
    assert "1,234,567 parameters; evaluated: moving averages (EMA)" in short
    assert "c7, ... (80 in all)" in short
    assert "0:01:01 with evaluations on CPU\n" in short
    assert len(short.splitlines()) <= 15
    assert max(map(len, short.splitlines())) < 160


def test_best_weights_are_drawn_and_averages_where_there_is_no_best(toy, monkeypatch):
    seen = []
    monkeypatch.setattr(
        summary, "draw_examples", lambda model, *_, **__: seen.append(model.state_dict()) or 0
    )
    assert toy.run("train.ema.enabled=True") == 0
    expected = toy.load("model_best")["ema"]
    assert all(torch.equal(seen[0][name], value) for name, value in expected.items())
