"""Weight averaging at the ends of cycles: schedule, average, files, resuming, batch norms."""

import json
import signal

import average_checkpoints as tool
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from engine_toy import ToyDetector, toy_mapper, toy_records
from torch import nn
from vfnet_yolof.analysis import compare
from vfnet_yolof.analysis.compare import Scores
from vfnet_yolof.checkpoint.average import average_checkpoints
from vfnet_yolof.cli.compare import compare_tool
from vfnet_yolof.config.packaged import config_dir
from vfnet_yolof.engine.swa import CyclicCosineParamScheduler, cycle_ends, refresh_batch_norm

OPTIONS = [
    *("train.swa.enabled=True", "train.swa.cycles=4", "train.swa.start=0.33"),
    *("train.swa.keep_parts=True", "train.eval_period=0"),
]
PARTS = [6, 8, 10, 12]  # iterations done, of 12


def assert_close(got, want, tolerance):
    assert got.keys() == want.keys()
    for name in want:
        difference = (got[name].double() - want[name].double()).abs().max()
        assert difference <= tolerance * want[name].double().abs().max().clamp(min=1), name


def part_files(toy):
    return sorted(toy.output_dir.glob("model_swa_part_*.pth"))


class TestSchedule:
    def test_each_cycle_falls_and_the_next_one_starts_anew(self):
        schedule = CyclicCosineParamScheduler(1.0, 0.01, num_cycles=3)
        rates = [schedule(i / 12) for i in range(12)]
        # (1 + cos(pi k / 4)) / 2 for k = 0..3
        cycle = [0.01 + 0.99 * share for share in (1.0, 0.8535534, 0.5, 0.1464466)]
        assert rates == pytest.approx(cycle * 3)
        assert schedule(1.0) == pytest.approx(0.01)

    @pytest.mark.parametrize(("max_iter", "cycles"), [(18 * 7330, 18), (97, 12), (430_000, 7)])
    def test_cycles_of_rates_and_weights_end_together(self, max_iter, cycles):
        """Whatever rounding does to i / max_iter: the average has the end of each fall."""
        schedule = CyclicCosineParamScheduler(num_cycles=cycles)
        ends = cycle_ends(max_iter, 0.0, cycles)
        assert ends[-1] == max_iter
        for end in ends[:-1]:
            assert schedule((end - 1) / max_iter) < schedule(end / max_iter)
            assert schedule(end / max_iter) > 0.9

    def test_after_a_step_schedule(self):
        path = str(config_dir() / "common/schedule.py")
        make = LazyConfig.load(path, "step_then_cyclic_schedule")
        node = make([36, 40], 41, 18, max_iter=59 * 7330)
        schedule, epoch = instantiate(node), 1 / 59
        assert schedule(0.0) == pytest.approx(0.1)
        values = {35.5: 1, 36.5: 0.1, 40.5: 0.01, 41: 1, 41.5: 0.505, 58: 1, 58.5: 0.505}
        for epochs, value in values.items():
            assert schedule(epochs * epoch) == pytest.approx(value, rel=1e-3), epochs
        assert cycle_ends(59 * 7330, 41 / 59, 18)[0] == 42 * 7330

    def test_too_short_a_phase_is_refused(self):
        with pytest.raises(ValueError, match=r"train\.swa\.cycles=18"):
            cycle_ends(20, 0.5, 18)
        with pytest.raises(ValueError, match=r"train\.swa\.start=1\.0"):
            cycle_ends(20, 1.0, 2)


class TestHook:
    def test_average_is_the_mean_of_the_files(self, toy):
        assert toy.run(*OPTIONS) == 0
        files = part_files(toy)
        assert [toy.load(f.stem)["iteration"] + 1 for f in files] == PARTS
        average = toy.load("model_swa")
        assert average["swa_parts"] == 4
        states = [toy.load(f.stem)["model"] for f in files]
        mean = {k: torch.stack([s[k].double() for s in states]).mean(0) for k in states[0]}
        mean["norm.num_batches_tracked"] = states[-1]["norm.num_batches_tracked"]
        assert_close(average["model"], mean, 1e-6)
        assert_close(average_checkpoints(files)["model"], mean, 1e-7)
        assert any(not torch.equal(average["model"][k], states[-1][k]) for k in mean)

    def test_training_goes_on_as_without_it(self, make_toy):
        plain, averaged = make_toy("plain"), make_toy("averaged")
        assert plain.run("train.eval_period=0") == 0
        assert averaged.run(*OPTIONS, "train.swa.bn_batches=2") == 0
        a, b = plain.load()["model"], averaged.load()["model"]
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert not list(plain.output_dir.glob("model_swa*"))
        assert "swa" not in plain.load()

    def test_resuming_in_the_middle_gives_the_same(self, make_toy):
        options = [*OPTIONS, "train.checkpointer.period=3", "train.swa.bn_batches=2"]
        whole, killed = make_toy("whole"), make_toy("killed")
        assert whole.run(*options) == 0
        process = killed.start(*options, TOY_KILL_AT="10")
        assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
        assert killed.run("--resume", *options) == 0
        for name in ("model_swa", "model_swa_part_03", "model_final"):
            a, b = whole.load(name)["model"], killed.load(name)["model"]
            assert all(torch.equal(a[k], b[k]) for k in a), name
        assert killed.load("model_swa")["swa_parts"] == 4

    def test_the_average_is_evaluated(self, toy):
        assert toy.run(*OPTIONS) == 0
        lines = (toy.output_dir / "metrics.json").read_text().splitlines()
        last = {k: v for line in lines for k, v in json.loads(line).items()}
        assert last["swa/toy/score"] != last["toy/score"]

        assert toy.run("--eval-only", f"train.init_checkpoint={toy.output_dir}/model_swa.pth") == 0

    def test_other_cycles_on_resuming_are_reported(self, toy):
        options = [x for x in OPTIONS if "cycles" not in x]
        assert toy.run(*options, "train.swa.cycles=4") == 0
        assert toy.run("--resume", *options, "train.swa.cycles=2", "train.max_iter=16") == 0
        log = (toy.output_dir / "log.txt").read_text()
        assert "The average has the weights after [6, 8, 10, 12] iterations; this" in log


class TestStartOfThePhase:
    """Six iterations of training, then two cycles of three."""

    options = (
        *("train.swa.enabled=True", "train.swa.start=0.5", "train.swa.cycles=2"),
        *("train.checkpointer.period=1", "train.checkpointer.max_to_keep=null"),
        *("train.eval_period=2", "model.norm=False"),
    )

    def momentum(self, checkpoint):
        state = checkpoint["trainer"]["optimizer"]["state"]
        return [state[k]["momentum_buffer"] for k in sorted(state)]

    def test_a_fresh_optimizer_has_no_momentum_of_the_training_before(self, make_toy):
        old, fresh = make_toy("old"), make_toy("fresh")
        assert old.run(*self.options) == 0
        assert fresh.run(*self.options, "train.swa.fresh_optimizer=True") == 0
        before = self.momentum(old.load("model_0000005"))
        carried = self.momentum(old.load("model_0000006"))
        anew = self.momentum(fresh.load("model_0000006"))
        for a, b, c in zip(before, carried, anew, strict=True):
            assert a.abs().max() > 0
            assert torch.allclose(b - 0.9 * a, c, atol=1e-6)

    def test_from_best(self, toy):
        options = [*self.options, "train.swa.fresh_optimizer=True", "train.swa.from_best=True"]
        process = toy.start(*options, "train.eval_period=4", TOY_KILL_AT="8")
        assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
        best = toy.load("model_best")
        assert best["iteration"] == 3  # of two more the phase knows nothing
        step = toy.load("model_0000006")
        group = step["trainer"]["optimizer"]["param_groups"][0]
        buffer = step["trainer"]["optimizer"]["state"][0]["momentum_buffer"]
        want = best["model"]["conv.weight"] - group["lr"] * buffer
        assert torch.allclose(step["model"]["conv.weight"], want, atol=1e-5)
        assert not torch.equal(want, toy.load("model_0000005")["model"]["conv.weight"])

    def test_without_an_evaluation_before_the_last_weights_are_said_to_be_used(self, toy):
        assert toy.run(*self.options, "train.swa.from_best=True", "train.eval_period=0") == 0
        assert (
            "no evaluation has written model_best.pth" in (toy.output_dir / "log.txt").read_text()
        )

    def test_resuming_around_the_start_gives_the_same(self, make_toy):
        options = [*self.options, "train.swa.fresh_optimizer=True", "train.swa.from_best=True"]
        whole, killed = make_toy("whole"), make_toy("killed")
        assert whole.run(*options) == 0
        process = killed.start(*options, TOY_KILL_AT="7")
        assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
        assert (killed.output_dir / "last_checkpoint").read_text() == "model_0000005.pth"
        assert killed.run("--resume", *options) == 0
        a, b = whole.load("model_swa")["model"], killed.load("model_swa")["model"]
        assert all(torch.equal(a[k], b[k]) for k in a)

    def test_a_phase_from_the_first_iteration_has_nothing_to_drop(self, toy, capsys):
        assert toy.run(*self.options, "train.swa.start=0.0", "train.swa.from_best=True") == 2
        assert "train.init_checkpoint" in capsys.readouterr().err


class TestBatchNorm:
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(2, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm1d(2))

    def test_statistics_are_those_of_the_batches(self):
        model = self.model().eval()
        batches = [torch.randn(8, 2) * 3 + 5 for _ in range(4)]
        state = torch.get_rng_state()
        refresh_batch_norm(model, batches)
        assert torch.equal(torch.get_rng_state(), state)
        assert not model.training
        mean = torch.stack([b.mean(0) for b in batches]).mean(0)
        variance = torch.stack([b.var(0) for b in batches]).mean(0)
        assert torch.allclose(model[0].running_mean, mean, rtol=1e-5)
        assert torch.allclose(model[0].running_var, variance, rtol=1e-5)
        assert model[0].momentum == 0.3

    def test_static_ones_keep_theirs(self):
        from vfnet_yolof.modeling.backbones.norms import StaticBatchNorm2d

        model = nn.Sequential(StaticBatchNorm2d(2), nn.BatchNorm2d(2))
        model[0].running_mean.fill_(7.0)
        refresh_batch_norm(model, [torch.randn(4, 2, 3, 3)])
        assert model[0].running_mean.tolist() == [7.0, 7.0]
        assert model[1].running_mean.abs().max() > 0

    def test_in_a_run(self, toy):
        """The last weights' statistics are of noisier weights than the average's own."""
        assert toy.run(*OPTIONS, "train.swa.bn_batches=3") == 0
        average = toy.load("model_swa")["model"]
        parts = average_checkpoints(part_files(toy))["model"]
        assert not torch.equal(average["norm.running_mean"], parts["norm.running_mean"])
        assert_close({"w": average["conv.weight"]}, {"w": parts["conv.weight"]}, 1e-6)
        saved = toy.load()["swa"]  # what --resume would go on from has not been changed
        assert_close({"m": saved["norm.running_mean"]}, {"m": parts["norm.running_mean"]}, 1e-6)

        model = ToyDetector(dropout=0.0)
        model.load_state_dict(average)
        images = torch.stack([toy_mapper(r)["image"] for r in toy_records(12)])
        features = model.conv(images)
        assert torch.allclose(features.mean((0, 2, 3)), model.norm.running_mean, atol=0.05)


class TestTool:
    def test_mean_by_hand_and_types(self, tmp_path, capsys):
        for number, value in enumerate((1.0, 2.0, 6.0)):
            state = {
                "w": torch.full((2,), value),
                "half": torch.full((1,), value, dtype=torch.float16),
                "count": torch.tensor(number),
            }
            torch.save(state, tmp_path / f"{number}.pth")
        names = [str(tmp_path / f"{n}.pth") for n in range(3)]
        assert tool.main([str(tmp_path / "mean.pth"), *names]) == 0
        mean = torch.load(tmp_path / "mean.pth", weights_only=True)
        assert mean["w"].tolist() == [3.0, 3.0]
        assert (mean["half"].item(), mean["half"].dtype) == (3.0, torch.float16)
        assert mean["count"].item() == 2
        assert "the mean of 3 files" in capsys.readouterr().out

    def test_own_checkpoints_keep_their_record(self, toy):
        assert toy.run(*OPTIONS, "train.ema.enabled=True") == 0
        files = [toy.output_dir / f"model_{n}.pth" for n in ("0000011", "final")]
        average = average_checkpoints(files)
        assert average["averaged_from"] == [str(f) for f in files]
        assert average["iteration"] == 11
        # of the weights, not of the moving average beside them
        assert torch.equal(average["model"]["box.weight"], toy.load()["model"]["box.weight"])

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"w": torch.zeros(3)}, r"w: (2,) float32 and (3,) float32"),
            ({"w": torch.zeros(2), "x": torch.zeros(1)}, "x: missing and (1,) float32"),
            ({"w": torch.zeros(2).half()}, "w: (2,) float32 and (2,) float16"),
            ({"note": "text"}, "no model weights in the file"),
        ],
    )
    def test_files_that_do_not_fit_are_refused(self, tmp_path, capsys, other, message):
        torch.save({"w": torch.zeros(2)}, tmp_path / "a.pth")
        torch.save(other, tmp_path / "b.pth")
        output = tmp_path / "mean.pth"
        assert tool.main([str(output), str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]) == 1
        assert message in capsys.readouterr().err
        assert not output.exists()

    @pytest.mark.parametrize("other", [["b", "a"], ["a", "c"]])
    def test_files_of_other_classes_are_refused(self, tmp_path, capsys, other):
        for name, classes in (("a", ["a", "b"]), ("b", []), ("c", other)):
            content = {"model": {"w": torch.zeros(2)}, "class_names": classes}
            torch.save(content, tmp_path / f"{name}.pth")
        files = [str(tmp_path / f"{name}.pth") for name in "abc"]
        assert tool.main([str(tmp_path / "mean.pth"), *files]) == 1
        message = capsys.readouterr().err
        assert f"{files[0]} and {files[2]} have different classes or another order" in message
        assert tool.main([str(tmp_path / "mean.pth"), *files[:2]]) == 0

    def test_a_missing_file_is_named(self, tmp_path, capsys):
        assert tool.main([str(tmp_path / "mean.pth"), str(tmp_path / "no.pth")]) == 1
        assert "no.pth" in capsys.readouterr().err


def test_table_of_averages():
    scores = [Scores([40.0, 42.0], 43.5), Scores([50.0, 51.0], 50.0)]
    lines = compare.average_table(["out/a", "out/b"], scores).splitlines()
    assert lines[2] == "| a | 2 | 41.00 (40.00 to 42.00) | 42.00 | 43.50 | +2.50 |"
    assert lines[3] == "| b | 2 | 50.50 (50.00 to 51.00) | 51.00 | 50.00 | -0.50 |"
    assert lines[4].startswith("| all | | 45.8 ± 6.7 (41.0, 50.5) |")


def test_comparison_needs_the_parts(tmp_path, capsys):
    assert compare_tool("", ["--average", str(tmp_path)]) == 2
    assert "train.swa.keep_parts=True" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --configs --average is required"),
        (["--configs", "a.py"], "needs --output"),
        (["--configs", "a.py", "--output", "o", "--trust-config"], "belong behind --"),
        (["--average", "a", "--", "train.max_iter=5"], "trains nothing"),
    ],
)
def test_comparison_refuses_what_it_would_not_use(arguments, message, capsys):
    with pytest.raises(SystemExit):
        compare_tool("", arguments)
    assert message in capsys.readouterr().err
