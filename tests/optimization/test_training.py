"""Models made ready for training against the models that they were."""

import copy

import pytest
import torch
import vfnet_yolof
from benchmarks.models import settle_threshold
from detectron2.layers import FrozenBatchNorm2d
from tiny import picture, shrink_yolof, tiny_model
from torch import nn
from vfnet_yolof.optimization import winograd
from vfnet_yolof.optimization.training_conv import TrainingConv2d

BATCH = [picture(seed=1), picture([[2, 2, 30, 30]], seed=2)]
MODELS = {
    "vfnet": lambda: tiny_model("vfnet/vfnet_small_shapes.py"),
    "gfl": lambda: tiny_model("gfl/gfl_small_shapes.py"),
    "yolof": lambda: tiny_model(
        "yolof/yolof_r50_c5_1x.py", shrink=shrink_yolof, backbone__bottom_up__norm="FrozenBN"
    ),
}


@pytest.fixture
def winograd_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES_IN_TRAINING", 1)


def lively(name: str) -> nn.Module:
    """A model whose norms do something."""
    model = MODELS[name]()
    torch.manual_seed(1)
    for module in model.modules():
        if hasattr(module, "running_mean"):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    return model.train()


def train(model: nn.Module) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    model.zero_grad()
    losses = model(BATCH)
    sum(losses.values()).backward()
    grads = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    return {k: v.item() for k, v in losses.items()}, grads


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("winograd_everywhere")
def test_the_same_losses_and_gradients(name: str) -> None:
    plain = lively(name)
    fast = copy.deepcopy(plain)
    parameters = dict(fast.named_parameters())
    count = vfnet_yolof.optimize_training(fast)
    replaced = [x for x in fast.modules() if isinstance(x, TrainingConv2d)]
    assert count == len(replaced) > 20
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert all(parameters[k] is p for k, p in fast.named_parameters())

    idle = set(replaced)
    for module in replaced:
        module.register_forward_hook(lambda module, args, out: idle.discard(module))
    norms = (FrozenBatchNorm2d, nn.BatchNorm2d)
    for module in fast.backbone.bottom_up.modules():
        if isinstance(module, norms):
            module.register_forward_hook(lambda *_: pytest.fail("a norm was not folded"))
    (want_losses, want), (losses, got) = train(plain), train(fast)
    assert not idle
    assert losses == pytest.approx(want_losses, rel=1e-4)
    assert got.keys() == want.keys()
    for key, grad in want.items():
        assert (got[key] - grad).norm() <= 1e-3 * grad.norm() + 1e-6, key


def test_twice_is_once() -> None:
    model = lively("vfnet")
    assert vfnet_yolof.optimize_training(model) > 0
    assert vfnet_yolof.optimize_training(model) == 0


def test_winograd_can_be_left_out() -> None:
    model = lively("yolof")
    vfnet_yolof.optimize_training(model, use_winograd=False)
    replaced = [x for x in model.modules() if isinstance(x, TrainingConv2d)]
    assert replaced
    assert not any(x.use_winograd for x in replaced)


def test_the_trained_model_can_be_optimised_for_inference() -> None:
    plain = lively("vfnet").eval()
    inputs = [{"image": BATCH[0]["image"]}]
    settle_threshold(plain, inputs)
    trained = copy.deepcopy(plain)
    vfnet_yolof.optimize_training(trained)
    with torch.inference_mode():
        want = plain(inputs)[0]["instances"]
        got = vfnet_yolof.optimize(trained)(inputs)[0]["instances"]
    assert len(want) >= 3
    torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
