"""A batch in parts: the losses and gradients of the whole, in the memory of a part."""

import pytest
import torch
import torch.multiprocessing as mp
from distributed_worker import MODELS, accumulate_rank
from engine_toy import ToyDetector, toy_mapper, toy_records
from tiny import empty_picture, picture, tiny_vfnet
from torch import nn
from vfnet_yolof.engine.step import TrainStep
from vfnet_yolof.modeling.losses.normalizer import (
    fixed_normalizers,
    recorded_normalizers,
    synced_mean,
    whole_batch_normalizers,
)

BATCH = [
    picture(seed=1),
    picture([[2, 2, 30, 30]], seed=2),
    empty_picture(seed=3),
    picture([[20, 8, 60, 60], [0, 0, 12, 12], [5, 30, 40, 62]], seed=4),
]


def trained(model: nn.Module, batch: list, accumulate: int) -> tuple[dict, dict]:
    """Losses and gradients of a step."""
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.0), accumulate=accumulate)
    losses = step(batch, 0).losses
    return losses, {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def assert_same_step(got: tuple[dict, dict], want: tuple[dict, dict]) -> None:
    assert got[0] == pytest.approx(want[0], rel=1e-5, abs=1e-8)
    assert got[1].keys() == want[1].keys()
    for name, grad in want[1].items():
        difference = (got[1][name] - grad).norm()
        assert difference <= 1e-5 * grad.norm() + 1e-8, (name, difference, grad.norm())


# Batch norms with the statistics of their batch see each part by itself.
EQUAL = [name for name in MODELS if not name.endswith("synchronised")]


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_are_the_whole_batch(name: str, accumulate: int) -> None:
    """One of the parts may have no positives; three parts of four images differ in length."""
    whole = trained(MODELS[name](), BATCH, 1)
    parts = trained(MODELS[name](), BATCH, accumulate)
    assert_same_step(parts, whole)


def test_the_mean_of_the_parts_would_be_something_else() -> None:
    want = trained(tiny_vfnet(), BATCH, 1)[0]
    each = [trained(tiny_vfnet(), part, 1)[0] for part in (BATCH[:3], BATCH[3:])]
    mean = {name: (each[0][name] + each[1][name]) / 2 for name in want}
    assert mean != pytest.approx(want, rel=1e-2)


@pytest.mark.timeout(180)
def test_in_two_processes(tmp_path) -> None:
    torch.save(BATCH, tmp_path / "batch.pt")
    mp.spawn(accumulate_rank, args=(2, str(tmp_path)), nprocs=2)
    got = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(got[0][1][k], got[1][1][k]) for k in got[0][1])
    assert_same_step(tuple(got[0]), trained(tiny_vfnet(), BATCH, 1))


class Normalised(ToyDetector):
    """Sums over the images, divided by a number of its own of each batch; batch norm, dropout."""

    def forward(self, batch):
        images = torch.stack([x["image"] for x in batch])
        features = self.dropout(self.norm(self.conv(images)).relu().mean((2, 3)))
        labels = torch.tensor([float(x["label"]) for x in batch])
        distance = (self.box(features)[:, 0] - labels).square().sum()
        return {"loss": distance / synced_mean(labels.sum())}


def toy_batch() -> list[dict]:
    return [toy_mapper(r) for r in toy_records(4)]


def test_batch_norm_counts_each_part_once() -> None:
    torch.manual_seed(0)
    model, other = Normalised(), Normalised()
    other.load_state_dict(model.state_dict())
    batch = toy_batch()
    trained(model, batch, 2)
    for part in (batch[:2], batch[2:]):
        other(part)
    state = other.norm.state_dict()
    assert state["num_batches_tracked"] == 2
    assert all(torch.equal(v, state[k]) for k, v in model.norm.state_dict().items())


def test_dropout_is_drawn_once() -> None:
    """Both passes over a part see the same network, and the next step goes on from there."""
    model, batch = Normalised(), toy_batch()
    torch.manual_seed(3)
    losses, _ = trained(model, batch, 2)
    after = torch.rand(1)
    torch.manual_seed(3)
    model.norm.momentum = 0.0
    total = sum(x["label"] for x in batch)
    want = 0.0
    for part in (batch[:2], batch[2:]):
        with fixed_normalizers([torch.tensor(float(total))]):
            want += model(part)["loss"].item()
    assert losses["loss"] == pytest.approx(want, rel=1e-5)
    assert torch.equal(torch.rand(1), after)


def test_divisors_by_hand() -> None:
    values = []
    for part in ([2.0, 0.0], [3.0, 0.25]):
        with recorded_normalizers() as recorded:
            assert [synced_mean(torch.tensor(x)).item() for x in part] == [max(x, 1) for x in part]
        values.append(recorded)
    totals = whole_batch_normalizers(values)
    assert [x.item() for x in totals] == [5.0, 0.25]
    with fixed_normalizers(totals):
        got = [synced_mean(torch.tensor(9.0), minimum).item() for minimum in (1.0, 0.5)]
    assert got == [5.0, 0.5]
    assert synced_mean(torch.tensor(9.0)).item() == 9.0


def test_models_that_divide_otherwise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.accumulate=2: .* synced_mean"):
        trained(ToyDetector(), toy_batch(), 2)
    with pytest.raises(ValueError, match=r"train\.accumulate=5: .* only 4 images"):
        trained(ToyDetector(), toy_batch(), 5)
    with pytest.raises(ValueError, match=r"train\.accumulate=0"):
        trained(ToyDetector(), toy_batch(), 0)


def test_a_run_with_parts(toy, capsys) -> None:
    """The option reaches the step; this toy's losses are means, which cannot be scaled."""
    assert toy.run("train.accumulate=2") == 2
    assert "train.accumulate=2" in capsys.readouterr().err
