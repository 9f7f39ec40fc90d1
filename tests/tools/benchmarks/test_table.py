"""Measures, rows, files and the command, at sizes where nothing is worth measuring."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import data_measures, measures, memory, report, table
from benchmarks.cli import main
from benchmarks.measures import Settings, agreement
from benchmarks.table import measure_table, row, table_rows
from benchmarks.timing import Comparison, Timing
from detectron2.structures import Boxes, Instances

SMALL = "gfl/gfl_small_shapes.py"
QUICK = Settings(repeats=1, warmup=0, size=(64, 96), boxes=2)


def fake_report(first: float, second: float) -> measures.Report:
    timings = {"A": Timing((first,), 0), "B": Timing((second,), 0)}
    return measures.Report("fake", Comparison(timings))


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two measures; the names of those that were taken."""
    taken: list[str] = []

    def group(name: str, first: float):
        def run(settings: Settings):
            taken.append(name)
            fake = fake_report(first, 2.0)
            return [table.ratio_row(name, "at least", 4.0, fake, "A", "B")], [fake]

        return run

    made = {"one": group("one", 10.0), "two": group("two", 6.0)}
    monkeypatch.setattr(table, "GROUPS", made)
    return taken


def test_what_is_in_the_file_is_not_measured_again(groups, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    measure_table(path, QUICK, only=["two"])
    content = measure_table(path, QUICK)
    assert groups == ["two", "one"]
    assert json.loads(path.read_text()) == content
    assert [(x["value"], x["met"]) for x in table_rows(content)] == [(5.0, True), (3.0, False)]
    measure_table(path, QUICK, again=True)
    assert groups == ["two", "one", "one", "two"]
    with pytest.raises(ValueError, match="there are one, two"):
        measure_table(path, QUICK, only=["three"])


def test_a_measure_that_fails_leaves_the_others(groups, tmp_path: Path, monkeypatch) -> None:
    def fails(settings: Settings):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(table.GROUPS, "two", fails)
    path = tmp_path / "table.json"
    with pytest.raises(RuntimeError):
        measure_table(path, QUICK)
    assert list(json.loads(path.read_text())["groups"]) == ["one"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_in_a_document(groups, tmp_path: Path, capsys) -> None:
    document, figures = tmp_path / "doc.md", tmp_path / "table.json"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    threads = torch.get_num_threads()
    options = ["--threads", str(threads + 1), "--json", str(figures), "--markdown", str(document)]
    for _ in range(2):
        assert main(["table", *options]) == 0
    assert torch.get_num_threads() == threads  # of this process, which goes on
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| one | ≥ 4 | 5 | 0% |" in text
    assert "| two | ≥ 4 | 3 (not met) | 0% |" in text
    assert "two: 3.000 (at least 4) NOT MET" in capsys.readouterr().out

    document.write_text("no marks")
    assert main(["table", "--json", str(figures), "--markdown", str(document)]) == 2


@pytest.mark.parametrize(
    ("direction", "value", "met"),
    [("at least", 2.0, True), ("at least", 1.9, False), ("at most", 2.0, True)],
)
def test_targets(direction: str, value: float, met: bool) -> None:
    assert row("x", direction, 2.0, value)["met"] is met


def test_agreement_sees_what_differs() -> None:
    def found(shift: float, score: float, label: int) -> list[Instances]:
        boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0 + shift]])
        return [
            Instances(
                (9, 9),
                pred_boxes=Boxes(boxes),
                scores=torch.tensor([score]),
                pred_classes=torch.tensor([label]),
            )
        ]

    same = agreement(found(0, 0.5, 1), found(0, 0.5, 1))
    assert same == {"boxes_px": 0.0, "scores": 0.0, "counts": 0.0}
    assert agreement(found(2, 0.5, 1), found(0, 0.5, 1))["boxes_px"] == 2.0
    assert agreement(found(0, 0.75, 1), found(0, 0.5, 1))["scores"] == 0.25
    assert agreement(found(0, 0.5, 2), found(0, 0.5, 1))["boxes_px"] > 1e5
    assert agreement([found(0, 0.5, 2)[0][:0]], found(0, 0.5, 1))["counts"] == 1.0


def test_inference_compares_results_first(tmp_path: Path) -> None:
    got = measures.inference(SMALL, QUICK, peer=False)
    names = list(got.comparison.timings)
    assert names[:2] == ["eager", "optimised"]
    assert measures.floor_of(got.comparison) in names
    assert got.notes["agreement with eager"]["optimised"]["boxes_px"] < 0.01
    assert got.notes["agreement with eager"]["optimised"]["scores"] < 1e-3
    report.write_json(got.as_dict(), tmp_path / "x.json")
    assert "optimised" in report.as_text(got)


def test_training_measures() -> None:
    got = measures.training(SMALL, QUICK)
    names = ["eager", "channels last", "bfloat16", "bfloat16, channels last"]
    assert list(got.comparison.timings) == [*names, "assignment and losses"]
    found = got.notes["agreement with eager"]
    assert list(found) == names[1:]
    assert found["channels last"]["losses"] < 1e-4
    assert found["channels last"]["gradients"] < 1e-2
    assert all(1e-6 < found[name]["losses"] < 0.1 for name in names[2:])
    assert all(x.peak_bytes > 0 for x in got.comparison.timings.values())


def test_losses_alone_reach_every_prediction() -> None:
    model, inputs = measures.model_and_batch(SMALL, QUICK, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measures.losses_alone(model, inputs)()
    after = model.state_dict()
    # The one forward pass in training mode moves running statistics, and nothing else changes.
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert all("running_" in k or "num_batches" in k for k in changed)


def test_evaluations_agree() -> None:
    variants = data_measures.evaluations(20, 30)
    ours = variants["ours"]()
    assert 0.01 < ours < 0.99
    assert variants["pycocotools"]() == pytest.approx(ours, abs=1e-9)


def test_memory_of_a_process() -> None:
    before = memory.peak_resident_mib()
    held = torch.ones(2**22 + int(before) * 2**18)  # 16 MiB more than the peak so far
    assert memory.peak_resident_mib() > before + 10
    del held
    again = memory.peak_resident_mib()
    assert again > before + 10, "the peak stays"
