"""Activation checkpointing and channels-last training: same results, other memory."""

import copy

import pytest
import torch
from engine_toy import ToyDetector
from tiny import picture, tiny_vfnet
from torch import nn
from vfnet_yolof.engine.memory import checkpoint_activations
from vfnet_yolof.modeling.backbones.darknet import CSPDarkNet

BATCH = [picture(seed=1), picture([[2, 2, 30, 30]], seed=2)]


def train(model: nn.Module) -> tuple[dict, dict, int]:
    """Losses, gradients, and bytes kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(BATCH)
    sum(losses.values()).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    return {k: v.item() for k, v in losses.items()}, grads, sum(kept.values())


@pytest.mark.parametrize("norm", ["BN", "StaticBN"])
def test_gradients_and_statistics_are_the_same(norm: str) -> None:
    plain = tiny_vfnet(backbone__bottom_up__norm=norm)
    recomputing = tiny_vfnet(backbone__bottom_up__norm=norm)
    assert checkpoint_activations(recomputing) == 9  # the stem and eight blocks of a ResNet-18
    assert recomputing.state_dict().keys() == plain.state_dict().keys()
    want_losses, want, memory = train(plain)
    losses, got, less = train(recomputing)
    assert losses == want_losses
    assert all(torch.equal(got[k], want[k]) for k in want)
    state = plain.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in recomputing.state_dict().items())
    if norm == "BN":
        assert state["backbone.bottom_up.stem.conv1.norm.num_batches_tracked"] == 1
    assert less < memory


def test_memory_of_the_backbone() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.backbone = CSPDarkNet(out_features=["res5"])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.backbone(images)["res5"].square().mean()

    def memory(model: nn.Module) -> int:
        kept: dict[int, int] = {}
        images = torch.randn(1, 3, 64, 64)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(images)
        return sum(kept.values())

    model = Backbone()
    before = memory(model)
    checkpoint_activations(model)
    assert memory(model) < before / 3


def test_frozen_blocks_are_left_alone() -> None:
    model = tiny_vfnet(backbone__bottom_up__freeze_at=2)
    assert checkpoint_activations(model) == 6
    train(model)
    assert model.backbone.bottom_up.stem.conv1.weight.grad is None
    assert model.backbone.bottom_up.res3[0].conv1.weight.grad is not None


def test_a_copy_has_weights_of_its_own() -> None:
    """As averaged weights need it."""
    model = tiny_vfnet()
    checkpoint_activations(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.backbone.bottom_up.parameters():
            p.zero_()
    losses, grads, _ = train(other)
    assert losses != train(model)[0]
    assert grads["backbone.bottom_up.res3.0.conv1.weight"].abs().sum() == 0


def test_without_blocks() -> None:
    with pytest.raises(ValueError, match=r"train\.activation_checkpointing"):
        checkpoint_activations(ToyDetector())


def test_channels_last_trains_the_same() -> None:
    plain, last = tiny_vfnet(), tiny_vfnet().to(memory_format=torch.channels_last)
    formats = []
    last.backbone.bottom_up.res3.register_forward_hook(
        lambda module, args, out: formats.append(
            out.is_contiguous(memory_format=torch.channels_last)
        )
    )
    want_losses, want, _ = train(plain)
    losses, got, _ = train(last)
    assert formats == [True]
    assert losses == pytest.approx(want_losses, rel=1e-5)
    for name, grad in want.items():
        assert (got[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-8, name


def test_options_reach_the_run(make_toy, capsys) -> None:
    plain, last = make_toy("plain"), make_toy("last")
    assert plain.run("train.max_iter=2") == 0
    assert last.run("train.max_iter=2", "train.channels_last=True") == 0
    a, b = plain.load()["model"], last.load()["model"]
    assert b["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    assert not a["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-5) for k in a)
    assert last.run("--resume", "train.max_iter=4", "train.channels_last=True") == 0
    assert plain.run("--resume", "train.max_iter=4") == 0
    a, b = plain.load()["model"], last.load()["model"]
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-5) for k in a)
    assert last.run("--overwrite", "train.activation_checkpointing=True") == 2
    assert "train.activation_checkpointing" in capsys.readouterr().err
