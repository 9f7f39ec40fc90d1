"""A run that was killed and resumed ends with the weights of one that was not, bit for bit."""

import signal

import pytest
import torch
from vfnet_yolof.engine.checkpoints import CheckpointFiles
from vfnet_yolof.engine.state import rng_state, set_rng_state
from vfnet_yolof.files import write_atomically


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_sigkill_and_resume_give_the_same_weights(make_toy):
    options = ["train.ema.enabled=True", "train.val_loss.enabled=True"]
    whole, killed = make_toy("whole"), make_toy("killed")
    assert whole.run(*options) == 0
    process = killed.start(*options, TOY_KILL_AT="11")
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    assert not (killed.output_dir / "model_final.pth").exists()
    assert (killed.output_dir / "last_checkpoint").read_text() == "model_0000007.pth"

    assert killed.run("--resume", *options) == 0
    a, b = whole.load(), killed.load()
    assert a["iteration"] == b["iteration"] == 11
    assert_same(a["model"], b["model"])
    assert_same(a["ema"], b["ema"])
    for group_a, group_b in zip(
        a["trainer"]["optimizer"]["state"].values(),
        b["trainer"]["optimizer"]["state"].values(),
        strict=True,
    ):
        assert torch.equal(group_a["momentum_buffer"], group_b["momentum_buffer"])
    best = a["trainer"]["hooks"]["BestCheckpointHook"]
    assert best == b["trainer"]["hooks"]["BestCheckpointHook"]
    assert best["best"] is not None


def test_workers_do_not_change_the_result(make_toy):
    plain, workers = make_toy("plain"), make_toy("workers")
    assert plain.run("train.max_iter=3") == 0
    assert workers.run("train.max_iter=3", "dataloader.train.num_workers=2") == 0
    assert_same(plain.load()["model"], workers.load()["model"])


def test_a_drawn_seed_is_kept_when_resuming(make_toy):
    toy = make_toy("run")
    toy.arguments = lambda *more: ["--config-file", toy.config, *more, toy._output()]
    assert toy.run("train.max_iter=4") == 0
    seed = toy.load()["seed"]
    assert toy.run("--resume", "train.max_iter=6") == 0
    assert toy.load()["seed"] == seed
    assert toy.load()["iteration"] == 5


def test_resume_without_a_checkpoint_says_so_and_starts_afresh(toy):
    assert toy.run("--resume", "train.max_iter=2") == 0
    log = (toy.output_dir / "log.txt").read_text()
    assert "There is no checkpoint" in log
    assert toy.load()["iteration"] == 1


def test_a_new_schedule_is_used_and_reported(toy):
    assert toy.run("train.max_iter=4") == 0
    assert toy.run("--resume", "train.max_iter=8", "optimizer.lr=0.02") == 0
    log = (toy.output_dir / "log.txt").read_text()
    assert "max_iter: 4 in the checkpoint, 8 now" in log
    assert "learning_rates: [0.1, 0.2] in the checkpoint, [0.02, 0.04] now" in log
    rates = {g["initial_lr"] for g in toy.load()["trainer"]["optimizer"]["param_groups"]}
    assert rates == {0.02, 0.04}


def test_another_optimizer_layout_is_refused(toy, capsys):
    assert toy.run("train.max_iter=2") == 0
    config = (toy.output_dir / "config.yaml").read_text()
    options = ["optimizer.params.bias_lr_factor=1.0", "optimizer.params.weight_decay_bias=null"]
    assert toy.run("--resume", "train.max_iter=4", *options) == 2
    assert "other parameter groups" in capsys.readouterr().err
    assert (toy.output_dir / "config.yaml").read_text() == config  # still that of the run


def test_damaged_and_missing_checkpoints_are_named(tmp_path):
    files = CheckpointFiles(tmp_path)
    files.save("model_0000003", {"trainer": {}})
    files.path("model_0000003").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"Cannot read checkpoint .*model_0000003\.pth"):
        files.load(files.last())
    files.delete("model_0000003")
    with pytest.raises(FileNotFoundError, match=r"names model_0000003\.pth"):
        files.last()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_random_states_survive_a_file(tmp_path):
    import random

    import numpy as np

    def draw():
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    torch.save(rng_state(), tmp_path / "state.pth")
    first = draw()
    set_rng_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draw() == first


def test_only_the_newest_checkpoints_are_kept(toy):
    assert toy.run("train.checkpointer.period=2") == 0
    names = sorted(p.name for p in toy.output_dir.glob("*.pth"))
    assert names == ["model_0000009.pth", "model_0000011.pth", "model_best.pth", "model_final.pth"]


def test_ctrl_c_saves_and_can_be_resumed(make_toy):
    whole, stopped = make_toy("whole"), make_toy("stopped")
    assert whole.run() == 0
    process = stopped.start(TOY_CTRL_C_AT="6")
    assert process.returncode == 130, process.stderr[-2000:]
    assert "Interrupted at iteration 6; continue with --resume" in process.stdout
    assert (stopped.output_dir / "last_checkpoint").read_text() == "model_0000005.pth"
    assert stopped.run("--resume") == 0
    assert_same(whole.load()["model"], stopped.load()["model"])
