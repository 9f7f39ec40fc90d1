"""CSPDarkNet: its routes written out, its constants, dilation, freezing and features."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.modeling.backbones import CSPDarkNet

STATISTICS = ("weight", "bias", "running_mean", "running_var")
STAGES = ["res1", "res2", "res3", "res4", "res5"]


def small(**options) -> CSPDarkNet:
    return CSPDarkNet(**{"stem_channels": 4, **options})


def convolve(layer: nn.Module, x: Tensor, activation=F.mish) -> Tensor:
    x = F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation)
    norm = layer.norm
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-4)
    return activation(x)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("Mish", lambda x: x * torch.tanh(torch.log1p(x.exp()))), ("LeakyReLU", None)],
)
@pytest.mark.parametrize("stage", ["res1", "res3"])
def test_a_stage_has_two_routes(stage: str, name: str, activation) -> None:
    """Through the residual blocks and past them; the blocks' channels come first in the sum."""
    torch.manual_seed(0)
    activation = activation or (lambda x: torch.where(x > 0, x, 0.1 * x))
    module = getattr(small(activation=name).double(), stage).eval()
    for key, tensor in module.state_dict().items():
        if "norm" in key and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    x = torch.randn(2, module.in_channels, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        down = convolve(module.down, x, activation)
        route = convolve(module.entry, down, activation)
        for block in module.blocks:
            inner = convolve(block.conv1, route, activation)
            route = route + convolve(block.conv2, inner, activation)
        route = convolve(module.exit, route, activation)
        past = convolve(module.bypass, down, activation)
        want = convolve(module.fuse, torch.cat([route, past], 1), activation)
        torch.testing.assert_close(module(x), want)


def timm_stage(stage: nn.Module, prefix: str, ours: dict[str, Tensor]) -> None:
    """Load timm's stage with the weights of ours below ``prefix``.

    Its one convolution ``conv_exp`` makes both routes, the one past the blocks first, and its last
    one sees them in this order.
    """
    weights = {k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)}
    both = {
        rest: torch.cat([weights[f"bypass.{rest}"], weights[f"entry.{rest}"]])
        for rest in ("weight", *(f"norm.{k}" for k in STATISTICS))
    }
    routes = weights["fuse.weight"].chunk(2, dim=1)
    parts = {"conv_down": "down", "conv_transition_b": "exit", "conv_transition": "fuse"}
    parts |= {
        f"blocks.{i}.conv{j}": f"blocks.{i}.conv{j}"
        for i in range(len(stage.blocks))
        for j in (1, 2)
    }
    source = {"conv_exp.conv.weight": both["weight"]}
    source |= {f"conv_exp.bn.{k}": both[f"norm.{k}"] for k in STATISTICS}
    for theirs, name in parts.items():
        source[f"{theirs}.conv.weight"] = weights[f"{name}.weight"]
        source |= {f"{theirs}.bn.{k}": weights[f"{name}.norm.{k}"] for k in STATISTICS}
    source["conv_transition.conv.weight"] = torch.cat(routes[::-1], dim=1)
    missing, unexpected = stage.load_state_dict(source, strict=False)
    assert not unexpected
    assert all(k.endswith("num_batches_tracked") for k in missing)


def test_computes_what_an_independent_implementation_does() -> None:
    """timm's CSPDarkNet-53 with our weights, norm constant and slope."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    model = CSPDarkNet(activation="LeakyReLU", out_features=STAGES).double().eval()
    weights = model.state_dict()
    for key, tensor in weights.items():
        if "norm" in key and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    theirs = timm.create_model("cspdarknet53").double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-4
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1
    stem = theirs.stem.conv1
    stem.conv.weight.data.copy_(weights["stem.conv.weight"])
    for name in STATISTICS:
        getattr(stem.bn, name).data.copy_(weights[f"stem.conv.norm.{name}"])
    for i, stage in enumerate(theirs.stages, start=1):
        timm_stage(stage, f"res{i}.", weights)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        outputs, y = model(x), theirs.stem(x)
        for name, stage in zip(STAGES, theirs.stages, strict=True):
            y = stage(y)
            torch.testing.assert_close(outputs[name] / y.std(), y / y.std())


def test_channels_of_the_routes() -> None:
    """As wide as the stage in the first one, where blocks narrow; half as wide in the others."""
    with torch.device("meta"):
        model = CSPDarkNet()
    for name, blocks, channels, route, hidden in (
        ("res1", 1, 64, 64, 32),
        ("res2", 2, 128, 64, 64),
        ("res3", 8, 256, 128, 128),
        ("res4", 8, 512, 256, 256),
        ("res5", 4, 1024, 512, 512),
    ):
        stage = getattr(model, name)
        assert len(stage.blocks) == blocks
        assert stage.down.weight.shape == (channels, channels // 2, 3, 3)
        for conv in (stage.bypass, stage.entry):
            assert conv.weight.shape == (route, channels, 1, 1)
        assert stage.blocks[0].conv1.weight.shape == (hidden, route, 1, 1)
        assert stage.blocks[0].conv2.weight.shape == (route, hidden, 3, 3)
        assert stage.exit.weight.shape == (route, route, 1, 1)
        assert stage.fuse.weight.shape == (channels, 2 * route, 1, 1)


@pytest.mark.parametrize(("dilation", "stride"), [(1, 32), (2, 16)])
@pytest.mark.parametrize("features", [["res5"], ["res3", "res5"], ["stem", *STAGES]])
def test_shapes_are_those_announced(dilation: int, stride: int, features: list[str]) -> None:
    model = small(res5_dilation=dilation, out_features=features)
    outputs, shapes = model(torch.randn(1, 3, 64, 96)), model.output_shape()
    assert list(outputs) == list(shapes) == features
    assert shapes["res5"].stride == stride
    for name, x in outputs.items():
        step = shapes[name].stride
        assert x.shape == (1, shapes[name].channels, 64 // step, 96 // step)


def test_the_last_stage_dilates_instead_of_striding() -> None:
    model = small(res5_dilation=2)
    convs = [m for m in model.res5.modules() if isinstance(m, nn.Conv2d)]
    assert {m.dilation for m in convs if m.kernel_size == (3, 3)} == {(2, 2)}
    assert {m.stride for m in convs} == {(1, 1)}
    others = [m for n in STAGES[:4] for m in getattr(model, n).modules()]
    assert {m.dilation for m in others if isinstance(m, nn.Conv2d)} == {(1, 1)}
    shapes = {k: v.shape for k, v in small().state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes  # same weights fit


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
    ],
)
def test_constants_of_the_norms(norm: str, kind: type) -> None:
    norms = [m for m in small(norm=norm).modules() if "Norm" in type(m).__name__]
    assert {type(m) for m in norms} == {kind}
    assert {m.eps for m in norms} == {1e-4}
    assert norm == "FrozenBN" or {m.momentum for m in norms} == {0.03}


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN"])
def test_frozen_stages_stay_and_others_learn(freeze_at: int, norm: str) -> None:
    torch.manual_seed(0)
    model = small(freeze_at=freeze_at, norm=norm, out_features=STAGES).train()
    frozen = {"stem", *STAGES[:freeze_at]} if freeze_at else set()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(x.square().mean() for x in model(x).values()).backward()
    if trainable:
        torch.optim.SGD(trainable, lr=0.1).step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[0] for k in changed} == {"stem", *STAGES} - frozen
    assert {k for k in before if k.split(".")[0] not in frozen} == changed
    assert {m.eps for m in model.modules() if isinstance(m, FrozenBatchNorm2d)} <= {1e-4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 21}, "depth must be one of 53, got 21"),
        ({"activation": "ReLU6"}, "activation must be .* got 'ReLU6'"),
        ({"res5_dilation": 4}, "res5_dilation must be one of 1, 2, got 4"),
        ({"out_features": ["res6"]}, "out_features must be one of stem, res1, .*, got 'res6'"),
        ({"freeze_at": 6}, "freeze_at must be one of 0, 1, 2, 3, 4, 5, got 6"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
