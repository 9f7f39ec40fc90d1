"""One switch takes a recipe to another batch size."""

import json

import pytest
from detectron2.config import LazyConfig
from vfnet_yolof.cli.training import argument_parser, read_arguments
from vfnet_yolof.config.options import complete_train_options
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.config.schedule import auto_scale, small_batch, warn_about_batch_size


@pytest.fixture
def cfg():
    cfg = load_config("vfnet/vfnet_r50_fpn_1x.py")
    complete_train_options(cfg)
    return cfg


def test_a_quarter_of_the_batch(cfg):
    cfg.train.ema.enabled = True
    relative = (cfg.lr_multiplier.warmup_length, list(cfg.lr_multiplier.scheduler.milestones))
    changes = auto_scale(cfg, 4)
    assert cfg.optimizer.lr == pytest.approx(0.0025)
    assert cfg.optimizer.params.base_lr == cfg.optimizer.lr
    assert cfg.train.max_iter == 4 * 87960
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 20000
    assert cfg.train.ema.decay == pytest.approx(0.9998**0.25)
    # steps and warm-up are parts of the whole, so they are four times as long, too
    assert relative == (
        cfg.lr_multiplier.warmup_length,
        list(cfg.lr_multiplier.scheduler.milestones),
    )
    assert changes[0] == "optimizer.lr: 0.01 -> 0.0025"
    assert "train.max_iter: 87960 -> 351840" in changes


def test_a_larger_batch_rounds_up_and_keeps_what_is_off(cfg):
    cfg.train.max_iter, cfg.train.eval_period = 101, 0
    auto_scale(cfg, 32)
    assert (cfg.train.max_iter, cfg.train.eval_period) == (51, 0)
    assert cfg.optimizer.lr == pytest.approx(0.02)


def test_the_scaled_config_is_not_scaled_again(cfg, tmp_path):
    auto_scale(cfg, 4)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert auto_scale(again, 4) == []
    assert again.train.max_iter == 351840


def test_the_recipes_own_batch_changes_nothing(cfg):
    assert auto_scale(cfg, 16) == []
    assert warn_about_batch_size(cfg, 16) is None


def test_without_the_switch_there_is_a_warning(cfg):
    message = warn_about_batch_size(cfg, 2)
    assert "16 images" in message
    assert "--auto-scale" in message
    assert cfg.optimizer.lr == 0.01


def test_small_batches(cfg):
    before = cfg.lr_multiplier.warmup_length
    changes = small_batch(cfg, 2)
    assert cfg.train.clip_grad.enabled
    assert cfg.lr_multiplier.warmup_length == pytest.approx(4 * before)
    assert cfg.lr_multiplier.warmup_factor == 0.001
    assert cfg.train.max_iter == 8 * 87960
    assert any(x.startswith("lr_multiplier.warmup_length") for x in changes)


def test_what_was_given_for_this_run_is_not_scaled(cfg):
    """Neither the length nor a rate or a warm-up that the command line has set."""
    given = {"train.max_iter", "optimizer.lr", "lr_multiplier.warmup_length"}
    kept = cfg.lr_multiplier.warmup_length
    changes = small_batch(cfg, 4, explicit=given)
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (87960, 0.01)
    assert cfg.lr_multiplier.warmup_length == kept
    assert cfg.train.eval_period == 20000  # the recipe's
    assert not any(line.startswith(tuple(given)) for line in changes)


def test_through_the_command_line(toy):
    options = ["dataloader.train.total_batch_size=2", "--auto-scale"]
    assert toy.run(*options, "train.eval_period=0") == 0
    final = toy.load()
    assert final["iteration"] == 23
    assert final["trainer"]["schedule"]["learning_rates"] == [0.05, 0.1]
    assert "Changed: train.max_iter: 12 -> 24" in (toy.output_dir / "log.txt").read_text()


def test_a_length_on_the_command_line_is_that_of_the_run(toy):
    options = ["dataloader.train.total_batch_size=2", "train.max_iter=3", "--auto-scale"]
    assert toy.run(*options) == 0
    assert toy.load()["iteration"] == 2
    log = (toy.output_dir / "log.txt").read_text()
    assert "train.max_iter=3 was given for this run and stays" in log


@pytest.mark.parametrize(
    ("key", "value"), [("SOLVER.MAX_ITER=100", 100), ("SOLVER.BASE_LR=0.02", 35184)]
)
def test_yacs_keys_count_as_given_too(key, value):
    arguments = ["--config-file", "vfnet/vfnet_r50_fpn_1x.yaml", "--auto-scale", key]
    arguments += ["dataloader.train.total_batch_size=40"]
    cfg = read_arguments(argument_parser().parse_intermixed_args(arguments)).cfg
    assert cfg.train.max_iter == value
    assert cfg.optimizer.lr == pytest.approx(0.025 if "MAX_ITER" in key else 0.02)


class TestResumingWithAnotherBatch:
    """Nine of twelve iterations of 4 images: three quarters, where the rate has dropped."""

    half = ("--resume", "dataloader.train.total_batch_size=2", "train.eval_period=0")

    @pytest.fixture
    def stopped(self, toy):
        process = toy.start("train.eval_period=0", TOY_CTRL_C_AT="9")
        assert process.returncode == 130, process.stderr[-2000:]
        return toy

    def log(self, toy):
        return (toy.output_dir / "log.txt").read_text()

    def test_the_place_is_the_share_of_images_seen(self, stopped):
        assert stopped.run(*self.half, "--auto-scale", "train.log_period=1") == 0
        assert "9 iterations of 4 images, as many as 18 of 2" in self.log(stopped)
        assert "Starting training from iteration 18" in self.log(stopped)
        assert stopped.load()["iteration"] == 23
        lines = (stopped.output_dir / "metrics.json").read_text().splitlines()
        rates = {x["iteration"]: x["lr"] for x in map(json.loads, lines) if "lr" in x}
        assert [rates[i] for i in range(18, 24)] == pytest.approx([0.005] * 6)

    def test_without_scaling_iterations_count_and_the_log_says_so(self, stopped):
        assert stopped.run(*self.half) == 0
        assert stopped.load()["iteration"] == 11
        assert "goes on after 9 of 12 iterations, though each has 2 images" in self.log(stopped)

    def test_an_explicit_length_is_in_images_too(self, stopped, capsys):
        assert stopped.run(*self.half, "--auto-scale", "train.max_iter=20") == 0
        assert stopped.load()["iteration"] == 19
        assert stopped.run(*self.half, "--auto-scale", "train.max_iter=12") == 2
        assert "nothing is left to train" in capsys.readouterr().err

    @pytest.mark.parametrize("total", [1, 2, 3, 6, 12])
    def test_no_cycle_is_averaged_twice_or_left_out(self, toy, total):
        """Nor where the ends of cycles of one batch fall between iterations of the other."""
        swa = ["train.swa.enabled=True", "train.swa.cycles=4", "train.eval_period=0"]
        assert toy.run(*swa) == 0
        assert toy.load("model_0000007")["iteration"] == 7  # two of four parts
        (toy.output_dir / "last_checkpoint").write_text("model_0000007.pth")
        batch = f"dataloader.train.total_batch_size={total}"
        assert toy.run("--resume", "--auto-scale", batch, *swa) == 0
        assert toy.load("model_swa")["swa_parts"] == 4


def test_a_resume_below_the_iterations_done_is_refused(toy, capsys):
    assert toy.run("train.max_iter=6", "train.eval_period=0") == 0
    assert toy.run("--resume", "train.max_iter=4", "train.eval_period=0") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "error: train.max_iter=4, but the checkpoint was written after 6 iterations: nothing is "
        "left to train. Set train.max_iter above 6, or evaluate the checkpoint with vfnet-yolof "
        "evaluate."
    )
    assert toy.load()["iteration"] == 5
