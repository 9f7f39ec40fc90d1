"""The papers' ablations, trained anew: rows, shares, small forms, and the table that results."""

import json

import pytest
import torch
from config_diff import ABSENT, flat
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from vfnet_yolof.analysis import compare, study
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import find_config, load_config

SMALL = [name for name, family in study.FAMILIES.items() if family.is_small]
AP = {"vfnet_t3_fl": 10.0, "vfnet_t3_vfl": 12.0, "vfnet_t3_vfl_star": 9.0}


@pytest.fixture
def runs(monkeypatch):
    """Trainings that only log an evaluation: the row's AP, and a little more for higher seeds."""
    calls = []

    def train(command, stdout, stderr):
        given = {name: command[command.index(name) + 1] for name in ("--config-file", "--seed")}
        folder = command[command.index("--output-dir") + 1]
        stem = given["--config-file"].rpartition("/")[2].partition(".")[0]
        calls.append((stem, int(given["--seed"])))
        ap = AP.get(stem, 5.0) + int(given["--seed"])
        with open(f"{folder}/metrics.json", "w") as file:
            file.write(json.dumps({"bbox/AP": ap}) + "\n")
        return type("Finished", (), {"returncode": 0})

    monkeypatch.setattr(compare.subprocess, "run", train)
    return calls


def command(tmp_path, *more):
    return main(["study", "vfnet-table3", "--output", str(tmp_path), "--seeds", "0", "1", *more])


def test_every_table_of_ablations_is_a_study_of_its_configs():
    for family in study.FAMILIES.values():
        for row in family.rows:
            assert find_config(f"{row.config}.py")
        assert set(family.baselines) <= {row.config for row in family.rows}


def test_rows_are_compared_with_the_baseline_above_them():
    family = study.FAMILIES["vfnet-table5"]
    assert family.baseline("ablations/vfnet_t5_atss_vfl") == "ablations/vfnet_t5_atss_fl"
    assert family.baseline("ablations/vfnet_t5_vfnet_fl") == "ablations/vfnet_t5_vfnet_fl"
    first = study.FAMILIES["vfnet-table2"]
    assert first.baseline("ablations/vfnet_t2_a050_g10") == "ablations/vfnet_t2_a075_g20"


def test_shares_train_each_run_once_into_one_table(runs, tmp_path, capsys):
    rows = ["--rows", "t3_fl", "t3_vfl"]
    for share in ("1/3", "2/3", "3/3"):
        assert command(tmp_path, *rows, "--shard", share) == 0
    expected = {
        (f"vfnet_t3_{x}", seed)
        for x in ("fl", "vfl", "vfl_star", "vfl_star_refine")
        for seed in (0, 1)
    }
    assert len(runs) == len(expected)
    assert set(runs) == expected
    assert command(tmp_path, *rows) == 0
    assert len(runs) == len(expected)  # nothing is repeated
    table = (tmp_path / study.TABLE).read_text()
    assert "| VFL | 40.1 | 12.5 ± 0.7 (12.0, 13.0) | +1.1 | +2.0 | yes |" in table
    assert "| VFL, star features | 40.7 | 9.5 ± 0.7 (9.0, 10.0) | +1.7 | -1.0 | no |" in table
    assert "| FCOS+ATSS | 39.2 | not run |" in table
    assert table.strip() in capsys.readouterr().out
    lines = json.loads((tmp_path / study.FIGURES).read_text())["rows"]
    assert lines[1]["measured"] == {"0": 12.0, "1": 13.0}


@pytest.mark.parametrize(
    ("gains", "paper", "order"),
    [
        ([1.0, 1.2], 0.5, "yes"),
        ([1.0, 1.2], -0.5, "no"),
        ([2.0, -1.5], 0.5, "not told apart"),
        ([1.0], 0.5, "yes (one seed)"),
        ([], 0.5, ""),
        ([1.0, 1.2], 0.0, ""),
        ([1.0, 1.2], None, ""),
        ([float("nan"), 1.2], 0.5, ""),
    ],
)
def test_the_order_is_told_only_beyond_the_spread_of_seeds(gains, paper, order):
    assert study._order(gains, paper) == order


@pytest.mark.parametrize("name", SMALL)
def test_small_rows_learn(name):
    for row in study.FAMILIES[name].rows[:: 2 if name != "gfl-table1b" else 1]:
        if "ssd" in row.config:
            with pytest.raises(ConfigError, match=f"{row.config} has no small form"):
                study.small_config(row.config, own_data=False)
            continue
        model = instantiate(study.small_config(row.config, own_data=False).model)
        truth = Instances((64, 64))
        truth.gt_boxes, truth.gt_classes = (
            Boxes(torch.tensor([[8.0, 8, 50, 60]])),
            torch.tensor([1]),
        )
        with EventStorage():
            losses = model([{"image": torch.full((3, 64, 64), 99.0), "instances": truth}])
        sum(losses.values()).backward()
        assert sum(parameter.numel() for parameter in model.parameters()) < 4e6
        assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("name", ["vfnet-table3", "gfl-table2b", "yolof-table4", "yolof-table7"])
def test_small_rows_differ_in_what_the_rows_differ_in(name):
    """The rows' models; their schedules are one budget for all when small."""
    family = study.FAMILIES[name]
    full, small = {}, {}
    for row in family.rows:
        full[row.config] = flat(load_config(f"{row.config}.py").model)
        small[row.config] = flat(study.small_config(row.config, own_data=False).model)
    for config in full:
        base = family.baseline(config)
        assert (config == base) == (full[config] == full[base])
        assert different(small[base], small[config]) == different(full[base], full[config])
        towers = [rows[config].get("head.num_convs") for rows in (full, small)]
        assert towers in ([4, 2], [3, 1], [None, None])


def different(one, other):
    return {key for key in one | other if one.get(key, ABSENT) != other.get(key, ABSENT)}


def test_a_study_of_other_settings_is_not_mixed_in(runs, tmp_path, capsys):
    small = ["--rows", "t3_fl", "--small"]
    assert command(tmp_path, *small) == 0
    assert command(tmp_path, *small, "--device", "cpu") == 0  # may be another on each machine
    for other, message in {
        ("--rows", "t3_fl"): "small iterations is 600 there, null now",
        (*small, "--iterations", "50"): "small iterations is 600 there, 50 now",
        (*small, "--shard", "1/1", "train.seed=1"): 'options is [] there, ["train.seed=1"] now',
    }.items():
        capsys.readouterr()
        assert command(tmp_path, *other) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    (tmp_path / "configs" / "vfnet_t3_fl.yaml").write_text("model: {}\n")
    assert command(tmp_path, *small) == 2
    assert "is another small form of this row" in capsys.readouterr().err
    assert len(runs) == 2


def test_a_seed_given_twice_is_trained_once(runs, tmp_path):
    for share in ("1/2", "2/2"):
        shares = ["--seeds", "3", "3", "--rows", "t3_fcos", "--shard", share]
        assert command(tmp_path, *shares) == 0
    assert runs == [("vfnet_t3_fcos_atss", 3)]


def test_runs_of_unknown_settings_are_not_mixed_in(runs, tmp_path, capsys):
    """Those of `compare` lie in folders of the same names."""
    folder = tmp_path / "vfnet_t3_fl_seed0"
    folder.mkdir()
    (folder / compare.DONE).write_text(json.dumps({"bbox/AP": 40.0, "minutes": 9.0}))
    assert command(tmp_path, "--rows", "t3_fl") == 2
    error = capsys.readouterr().err
    assert "has finished runs of ablations/vfnet_t3_fl and no study.json" in error
    assert not runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vfnet-table9", "--output", "x"], "There is no study 'vfnet-table9'; there are vfnet-"),
        (["vfnet-table3"], "--output is missing"),
        (["vfnet-table3", "--output", "x", "--shard", "3/2"], "--shard 3/2: give i/n"),
        (["vfnet-table3", "--output", "x", "--rows", "giou"], "--rows giou: no row"),
        (["vfnet-table3", "--output", "x", "--iterations", "9"], "goes with --small"),
        (["vfnet-table3", "--output", "x", "--small", "--iterations", "0"], "--iterations 0: give"),
        (["vfnet-table3", "--output", "x", "--seeds", "-1"], "--seeds -1: give 0 or more"),
        (["yolof-figure1", "--output", "x", "--small"], "has no small form"),
        ([], "Name a study: vfnet-table2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message, capsys):
    assert main(["study", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
