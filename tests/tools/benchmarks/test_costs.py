"""Detectors side by side, and the measures of a GPU, at sizes where nothing is worth measuring."""

import json
import os
from pathlib import Path

import pytest
import torch
from benchmarks import costs, memory, table
from benchmarks.cli import argument_parser, main
from benchmarks.costs import Trained, cost_table, detectors
from benchmarks.measures import Settings
from vfnet_yolof.analysis.cost_report import analyze
from vfnet_yolof.config.packaged import load_config

SMALL = "gfl/gfl_small_shapes.py"
OTHER = "yolof/yolof_small_shapes.py"
QUICK = Settings(repeats=2, warmup=0, size=(64, 96), boxes=2)


def test_one_number_of_images_for_all_or_one_for_each() -> None:
    assert detectors([SMALL, OTHER], [2]) == [Trained(SMALL, 2), Trained(OTHER, 2)]
    assert detectors([SMALL, OTHER], [8, 2]) == [Trained(SMALL, 8), Trained(OTHER, 2)]
    assert detectors([SMALL, SMALL], [1, 2])[1].label == f"{SMALL}, 2 images"


@pytest.mark.parametrize(
    ("configs", "batches", "message"),
    [
        ([SMALL, OTHER], [1, 2, 3], "--batch has 3 numbers for 2 configs"),
        ([SMALL], [0], "--batch 0: a step needs at least one image"),
        ([SMALL, SMALL], [2], f"{SMALL}, 2 images: named twice"),
    ],
)
def test_other_numbers_are_refused(configs, batches, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detectors(configs, batches)


def test_costs_side_by_side(tmp_path: Path, monkeypatch, capsys) -> None:
    """Each measure has all rounds of each detector, and the table a line for each."""
    monkeypatch.setattr(costs, "training_memory", lambda one, settings: 100.0 * one.batch)
    path = tmp_path / "costs.json"
    options = ["--batch", "1", "2", "--size", "64", "96", "--repeats", "2", "--warmup", "0"]
    assert main(["costs", SMALL, OTHER, *options, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"| {SMALL}, 1 images" in printed and f"| {OTHER}, 2 images" in printed

    content = json.loads(path.read_text())
    titles = [report["title"] for report in content["reports"]]
    assert titles == [
        "training step",
        "inference of one image, eager",
        "inference of one image, optimised",
    ]
    training, *inference = (report["variants"] for report in content["reports"])
    assert list(training) == [f"{SMALL}, 1 images", f"{OTHER}, 2 images"]
    assert all(list(variants) == [SMALL, OTHER] for variants in inference)
    assert all(len(x["seconds"]) == 2 for v in (training, *inference) for x in v.values())

    once = content["reports"][0]["notes"]["detectors"][f"{SMALL}, 1 images"]
    assert once["multiply_adds"] == analyze(SMALL, (64, 96)).multiply_adds
    cfg = load_config(SMALL)
    wanted = cfg.train.max_iter * cfg.dataloader.train.total_batch_size
    assert once["schedule_images"] == wanted > 0
    assert once["training_mib"] == 100.0


@pytest.mark.slow
def test_training_memory_of_a_process_of_its_own() -> None:
    """At least the trained weights, their gradients and their momentum; not what is imported."""
    mib = costs.training_memory(Trained(SMALL, 1), QUICK)
    parameters = analyze(SMALL, (64, 96)).parameters
    assert 3 * 4 * parameters / 2**20 < mib < 1000


def test_table_of_costs() -> None:
    """Times of an image are those of a step by its images; a schedule is extrapolated from them."""
    from benchmarks.measures import Report
    from benchmarks.timing import Comparison, Timing

    def report(name: str, seconds: float, **notes) -> Report:
        return Report("", Comparison({name: Timing((seconds,), 0)}), notes)

    once = {
        "config": SMALL,
        "batch": 4,
        "parameters": 2_500_000,
        "multiply_adds": 3e9,
        "training_mib": 77.0,
        "schedule_images": 36_000,
    }
    training = report("A", 2.0, detectors={"A": once})
    text = cost_table([training, report(SMALL, 0.25), report(SMALL, 0.125)])
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells == ["A", "2.50", "3.0", "77", "2.000", "500.0", "5.0", "250.0", "125.0"]


def test_a_process_that_dies_is_an_error_and_no_figure() -> None:
    assert memory.in_own_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match=r"memory of 3 has died.*smaller --batch"):
        memory.in_own_process(os._exit, 3)


@pytest.mark.slow
def test_what_a_gpu_is_measured_by_runs_on_any_device(tmp_path: Path) -> None:
    """The same functions, on the CPU: what differs is half precision, which it has no use for."""
    groups = table.gpu_groups({"gfl": SMALL}, batch=1)
    assert list(groups) == ["training_gfl", "inference_gfl", "costs"]
    path = tmp_path / "gpu.json"
    content = table.measure_table(path, QUICK, groups=groups)
    assert json.loads(path.read_text()) == content
    (training,) = content["groups"]["training_gfl"]["reports"]
    assert {"eager", "bfloat16, channels last"} <= set(training["variants"])
    (inference,) = content["groups"]["inference_gfl"]["reports"]
    assert "optimised" in inference["variants"]
    assert len(content["groups"]["costs"]["reports"]) == 3


@pytest.mark.gpu
def test_a_gpu_is_measured_in_half_precision_too(tmp_path: Path) -> None:
    groups = table.gpu_groups({"gfl": SMALL}, batch=1)
    settings = Settings(device="cuda", repeats=1, warmup=1, size=(64, 96), boxes=2)
    content = table.measure_table(tmp_path / "gpu.json", settings, groups=groups)
    (training,) = content["groups"]["training_gfl"]["reports"]
    assert {"float16", "bfloat16", "eager"} <= set(training["variants"])
    (inference,) = content["groups"]["inference_gfl"]["reports"]
    assert {"optimised float16", "optimised bfloat16"} <= set(inference["variants"])


def test_without_a_gpu_one_line_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    output = tmp_path / "gpu.json"
    assert main(["gpu", "--json", str(output)]) == 2
    assert capsys.readouterr().err == "error: device cuda: there are 0 CUDA devices here\n"
    assert main(["gpu", "--device", "cpu", "--json", str(output)]) == 2
    assert capsys.readouterr().err == "error: gpu measures a CUDA device, not cpu\n"
    assert main(["costs", SMALL, "--device", "cuda"]) == 2
    assert "there are 0 CUDA devices" in capsys.readouterr().err
    assert not output.exists()


def test_a_gpu_is_measured_at_the_papers_size() -> None:
    args = argument_parser().parse_args(["gpu", "--json", "x.json"])
    assert (args.device, tuple(args.size), args.batch) == ("cuda", (800, 1333), 8)


def test_costs_of_a_config_that_does_not_exist(capsys) -> None:
    assert main(["costs", "gfl/absent.py"]) == 2
    assert capsys.readouterr().err.startswith("error: config file 'gfl/absent.py' not found")
    with pytest.raises(ValueError, match="named twice"):
        costs.costs([SMALL, SMALL], [1], QUICK)
