"""Averaged weights, the best checkpoint, early stopping, validation loss."""

import json
from pathlib import Path

import pytest
import torch
from engine_toy import ToyDetector, toy_mapper, toy_records
from torch import nn
from vfnet_yolof.engine.evaluation import ValidationLoss
from vfnet_yolof.engine.swa import EMAHook
from vfnet_yolof.utils.state import rng_state

FOLDER = Path(__file__).parent


def metrics(folder):
    """The lines of metrics.json, which must be strict JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "metrics.json").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def values_of(toy, key):
    lines = metrics(toy.output_dir)
    return [x[key] for x in lines if key in x]


def test_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    ema = EMAHook(model, decay=0.9, warmup=False)
    got = []
    for value in (1.0, 2.0, 4.0):
        model.weight.data.fill_(value)
        ema.after_step()
        got.append(ema.module.weight.item())
    # the first update takes the weights over
    assert got == pytest.approx([1.0, 0.9 * 1 + 0.1 * 2, 0.9 * 1.1 + 0.1 * 4])


def test_average_follows_faster_in_the_beginning():
    model = nn.Linear(1, 1, bias=False)
    ema = EMAHook(model, decay=0.9998, warmup=True)
    want, decays = None, [None, 2 / 11, 3 / 12]
    for value, decay in zip((1.0, 2.0, 4.0), decays, strict=True):
        model.weight.data.fill_(value)
        ema.after_step()
        want = value if decay is None else decay * want + (1 - decay) * value
    assert ema.module.weight.item() == pytest.approx(want)


def test_average_is_evaluated_saved_and_leaves_training_alone(make_toy):
    plain, averaged = make_toy("plain"), make_toy("averaged")
    assert plain.run() == 0
    assert averaged.run("train.ema.enabled=True", "train.ema.decay=0.5") == 0
    a, b = plain.load(), averaged.load()
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert any(not torch.equal(b["ema"][k], b["model"][k]) for k in b["model"])
    assert values_of(plain, "toy/score") != values_of(averaged, "toy/score")

    model = ToyDetector()
    model.load_state_dict(b["ema"])
    model.eval()
    with torch.no_grad():
        import numpy as np

        np.random.seed(0)
        losses = [model([toy_mapper(r)])[0]["loss"] for r in toy_records(6)]
    last = values_of(averaged, "toy/score")[-1]
    assert -sum(losses) / 6 == pytest.approx(last, abs=0.02)  # the mapper's noise differs


def test_best_checkpoint_is_that_of_the_best_evaluation(toy):
    assert toy.run("optimizer.lr=0.5") == 0
    scores = values_of(toy, "toy/score")
    best = toy.load("model_best")
    state = toy.load()["trainer"]["hooks"]["BestCheckpointHook"]
    assert state["best"] == max(scores)
    assert best["iteration"] == state["best_iteration"]
    # the last checkpoint stays what --resume continues from
    assert (toy.output_dir / "last_checkpoint").read_text() == "model_final.pth"


def test_best_survives_a_restart(toy):
    assert toy.run("train.max_iter=4") == 0
    first = toy.load()["trainer"]["hooks"]["BestCheckpointHook"]
    # so bad a learning rate that nothing better comes
    assert toy.run("--resume", "train.max_iter=8", "optimizer.lr=50.0") == 0
    second = toy.load()["trainer"]["hooks"]["BestCheckpointHook"]
    assert second["best"] == first["best"]
    assert second["best_iteration"] == 3
    assert toy.load("model_best")["iteration"] == 3


def test_early_stopping_and_its_restart(toy):
    options = ["optimizer.lr=0.0", "train.eval_period=2", "train.early_stopping.patience=2"]
    # a metric that does not move: no learning, no noise, no dropout
    options += ["model.norm=False", "model.dropout=0.0", "train.val_loss.enabled=True"]
    options += ["train.best_checkpoint.metric=val_loss/loss_box", "train.best_checkpoint.mode=min"]
    toy.config = str(FOLDER / "toy_still_config.py")
    assert toy.run(*options) == 0
    final = toy.load()
    assert final["iteration"] == 5  # best after 2, no better after 4 and 6
    log = (toy.output_dir / "log.txt").read_text()
    assert "Early stopping: val_loss/loss_box has not improved in 2 evaluations" in log

    assert toy.run("--resume", *options) == 0
    assert toy.load()["iteration"] == 5  # it does not train on

    options[2] = "train.early_stopping.patience=3"
    assert toy.run("--resume", *options) == 0
    assert toy.load()["iteration"] == 7


def test_validation_loss_has_no_side_effects():
    torch.manual_seed(0)
    model = ToyDetector()
    model.norm.eval()  # a mode of its own, as frozen layers have
    records = [toy_mapper(r) for r in toy_records(6)]
    hook = ValidationLoss(lambda: model, [records[:4], records[4:]])
    buffers = {k: v.clone() for k, v in model.state_dict().items()}
    random_state = rng_state()["torch"]
    losses = hook.compute()
    assert all(torch.equal(v, buffers[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng_state()["torch"], random_state)
    assert model.training
    assert not model.norm.training
    assert all(p.grad is None for p in model.parameters())

    model.dropout.p = 0.0
    losses = hook.compute()
    whole = model(records)  # one batch of all
    assert losses["loss_box"] == pytest.approx(whole["loss_box"].item(), rel=1e-5)
    assert losses["loss_cls"] == pytest.approx(whole["loss_cls"].item(), rel=1e-5)


def test_validation_loss_needs_no_other_process(monkeypatch):
    """Shares of a validation set differ in length, so that a collective in a batch would wait."""
    from vfnet_yolof.modeling.losses import normalizer

    class Normalised(ToyDetector):
        def forward(self, batch):
            return {"loss": normalizer.synced_mean(torch.tensor(3.0))}

    def all_reduce(value):
        raise AssertionError("collective")

    model = Normalised()
    monkeypatch.setattr(normalizer, "get_world_size", lambda: 2)
    monkeypatch.setattr(normalizer.dist, "all_reduce", all_reduce)
    hook = ValidationLoss(lambda: model, [toy_records(2), toy_records(1)])
    assert hook.compute() == {"loss": 3.0}
    with pytest.raises(AssertionError, match="collective"):  # in training they take part again
        normalizer.synced_mean(torch.tensor(3.0))


def test_a_metric_that_is_not_computed_is_reported(toy):
    assert toy.run("train.max_iter=2", "train.best_checkpoint.metric=bbox/AP") == 0
    log = (toy.output_dir / "log.txt").read_text()
    assert "train.best_checkpoint.metric=bbox/AP was not computed; there are: toy/score" in log


def test_weights_that_are_not_finite_are_not_saved(toy, capsys):
    options = ["optimizer.lr=1e30", "train.eval_period=0", "train.checkpointer.period=1"]
    assert toy.run(*options) == 1
    assert "error: " in capsys.readouterr().err
    assert not list(toy.output_dir.glob("model_final.pth"))
    for path in toy.output_dir.glob("*.pth"):
        weights = torch.load(path, weights_only=True)["model"].values()
        assert all(w.isfinite().all() for w in weights)
