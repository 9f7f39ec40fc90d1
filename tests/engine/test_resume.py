"""A run that was killed and resumed ends with the weights of one that was not, bit for bit."""

import signal

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from omegaconf import OmegaConf
from tiny import shrink, tiny_model
from vfnet_yolof.checkpoint.fitting import load_whole
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine.checkpoints import CheckpointFiles
from vfnet_yolof.engine.fine_tune import load_checkpoint_for_evaluation
from vfnet_yolof.engine.run import _load_model
from vfnet_yolof.engine.swa import EMAHook, SWAHook
from vfnet_yolof.utils.files import write_atomically
from vfnet_yolof.utils.state import rng_state, set_rng_state


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


def frozen_vfnet(seed=0):
    """A small VFNet whose stem and first stage have Detectron2's frozen norms."""

    def frozen(config):
        shrink(config)
        config.model.backbone.bottom_up.norm, config.model.backbone.bottom_up.freeze_at = "BN", 2
        return config

    return tiny_model(seed=seed, shrink=frozen)


def with_counters(model):
    """The model as Detectron2's main branch builds it: frozen norms keep their batch counters."""
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d) and "num_batches_tracked" not in module._buffers:
            module.register_buffer("num_batches_tracked", torch.tensor(7))
    return model


def without_counters(model):
    """The model as Detectron2 0.6 builds it."""
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module._buffers.pop("num_batches_tracked", None)
    return model


@pytest.mark.parametrize(
    ("written_by", "read_by"),
    [(without_counters, with_counters), (with_counters, without_counters)],
    ids=["0.6 to main", "main to 0.6"],
)
class TestARunOfTheOtherDetectron2:
    """The two differ in the batch counters of frozen norms, which no weight depends on."""

    @pytest.fixture
    def file(self, written_by, tmp_path):
        """Weights, and both kinds of averages of them, as a run of the other one leaves them."""
        model = written_by(frozen_vfnet(seed=1))
        state = model.state_dict()
        averages = {"ema": state, "swa": {k: v.clone() for k, v in state.items()}}
        files = CheckpointFiles(tmp_path)
        files.save("model_0000003", {"model": state, **averages, "trainer": {}})
        return files

    def check(self, model, content):
        own, saved = model.state_dict(), content["model"]
        assert own.keys() != saved.keys()
        assert_same(
            {k: own[k] for k in own.keys() & saved.keys()},
            {k: saved[k] for k in own.keys() & saved.keys()},
        )
        for name in own.keys() ^ saved.keys():
            assert name.startswith(("backbone.bottom_up.stem", "backbone.bottom_up.res2"))
            assert name.endswith(".num_batches_tracked")

    def test_resumes(self, file, read_by):
        content = file.load(file.last())
        model = read_by(frozen_vfnet())
        _load_model(model, content["model"], file)
        self.check(model, content)

    def test_resumes_averages(self, file, read_by):
        content = file.load(file.last())
        model = read_by(frozen_vfnet())
        for hook in (EMAHook(model, decay=0.9), SWAHook(model, file, [4])):
            hook.restore(content)
            self.check(hook.module, content)

    def test_is_evaluated(self, file, read_by):
        content = file.load(file.last())
        model = read_by(frozen_vfnet())
        path = str(file.last())
        load_checkpoint_for_evaluation(model, OmegaConf.create({"init_checkpoint": path}))
        self.check(model, content)

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "counter"])
    def test_all_else_stays_strict(self, file, read_by, change):
        content = file.load(file.last())
        weights, name = content["model"], "backbone.bottom_up.res2.0.conv1.norm.running_mean"
        if change == "missing":
            del weights[name]
        elif change == "unexpected":
            weights["backbone.bottom_up.res2.0.conv1.norm.other"] = torch.zeros(1)
        elif change == "shape":
            weights[name] = torch.zeros(3)
        else:  # of a norm that the model does not have
            weights["backbone.bottom_up.res9.norm.num_batches_tracked"] = torch.tensor(0)
        with pytest.raises(ConfigError, match=r"model_0000003\.pth is of another model"):
            _load_model(read_by(frozen_vfnet()), weights, file)


def test_a_run_goes_on_with_the_counters_it_lacks(toy):
    assert toy.run("train.max_iter=4", "train.ema.enabled=True") == 0
    content = toy.load()
    for entry in ("model", "ema"):
        del content[entry]["norm.num_batches_tracked"]
    torch.save(content, toy.output_dir / "model_final.pth")
    assert toy.run("--resume", "train.max_iter=6", "train.ema.enabled=True") == 0
    assert toy.load()["model"]["norm.num_batches_tracked"] == 2


def test_what_is_loaded_whole_is_not_changed():
    model = frozen_vfnet()
    weights = with_counters(frozen_vfnet(seed=1)).state_dict()
    names = list(weights)
    load_whole(model, weights)
    assert list(weights) == names


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
