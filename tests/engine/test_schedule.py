"""One switch takes a recipe to another batch size."""

import pytest
from detectron2.config import LazyConfig
from vfnet_yolof.configs import load_config
from vfnet_yolof.engine.options import complete_train_options
from vfnet_yolof.engine.schedule import auto_scale, small_batch, warn_about_batch_size


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


def test_through_the_command_line(toy):
    options = ["dataloader.train.total_batch_size=2", "train.max_iter=2", "--auto-scale"]
    assert toy.run(*options) == 0
    final = toy.load()
    assert final["iteration"] == 3
    assert final["trainer"]["schedule"]["learning_rates"] == [0.05, 0.1]
    assert "Changed: train.max_iter: 2 -> 4" in (toy.output_dir / "log.txt").read_text()
