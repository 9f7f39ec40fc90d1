"""Res2Net v1d: its blocks against a literal reading, its size, what learns and what stays."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.layers.deform_conv import DeformConvPack, ModulatedDeformConvPack
from vfnet_yolof.modeling.backbones import StaticBatchNorm2d, build_res2net


def small(**options) -> nn.Module:
    defaults = {"depth": 50, "stem_channels": 8, "res2_channels": 32, "base_width": 32}
    return build_res2net(**{**defaults, **options})


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and factors that are not those of the identity."""
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def convolve(layer: nn.Module, x: Tensor, relu: bool = True) -> Tensor:
    """Convolution, norm and ReLU, written out."""
    padding = layer.weight.shape[-1] // 2
    x = F.conv2d(x, layer.weight, stride=layer.stride, padding=padding)
    x = F.batch_norm(
        x,
        layer.norm.running_mean,
        layer.norm.running_var,
        layer.norm.weight,
        layer.norm.bias,
        eps=1e-5,
    )
    return x.relu() if relu else x


def literal_block(block: nn.Module, x: Tensor, first: bool) -> Tensor:
    """Section 3.1: y1 = K1(x1), yi = Ki(xi + y(i-1)), the last part unchanged.

    In the first block of a stage nothing is handed on, and the last part is pooled with the stride.
    """
    width, stride = block.convs[0].weight.shape[0], block.stride
    wide = convolve(block.conv1, x)
    parts = [wide[:, i * width : (i + 1) * width] for i in range(wide.shape[1] // width)]
    results = []
    for i, conv in enumerate(block.convs):
        inputs = parts[i] if first or i == 0 else parts[i] + results[i - 1]
        results.append(convolve(conv, inputs))
    last = parts[-1]
    if stride == 2:  # nine cells around every other one, zeros outside
        last = F.conv2d(last, torch.full((width, 1, 3, 3), 1 / 9), None, 2, 1, 1, width)
    out = convolve(block.conv3, torch.cat([*results, last], 1), relu=False)
    if not first:
        return (out + x).relu()
    if stride == 2:
        x = (x[..., 0::2, 0::2] + x[..., 1::2, 0::2] + x[..., 0::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return (out + convolve(block.shortcut, x, relu=False)).relu()


@pytest.mark.parametrize(("stage", "index"), [("res2", 0), ("res2", 1), ("res3", 0), ("res3", 1)])
def test_a_block_is_what_the_paper_writes(stage: str, index: int) -> None:
    torch.manual_seed(0)
    block = randomise(getattr(small(freeze_at=0), stage)[index])
    x = torch.randn(2, block.in_channels, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(block(x), literal_block(block, x, first=index == 0))


def test_deep_stem() -> None:
    torch.manual_seed(0)
    stem = randomise(small(freeze_at=0).stem)
    assert [tuple(c.weight.shape) for c in (stem.conv1, stem.conv2, stem.conv3)] == [
        (4, 3, 3, 3),
        (4, 4, 3, 3),
        (8, 4, 3, 3),
    ]
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        want = convolve(stem.conv3, convolve(stem.conv2, convolve(stem.conv1, x)))
        torch.testing.assert_close(stem(x), F.max_pool2d(want, 3, 2, 1))
    assert stem(x).shape == (2, 8, 8, 12)


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
def test_shapes_are_those_announced(size: tuple[int, int]) -> None:
    """Sides that the strides do not divide are rounded up in both branches of a block."""
    names = ["res2", "res3", "res4", "res5"]
    model = small(out_features=names)
    outputs = model(torch.randn(1, 3, *size))
    shapes = model.output_shape()
    assert list(outputs) == list(shapes) == names
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 32]
    for name, x in outputs.items():
        sides = [-(-side // shapes[name].stride) for side in size]
        assert list(x.shape) == [1, shapes[name].channels, *sides]


def test_widths_of_the_parts() -> None:
    """26, 52, 104, 208 channels in four parts: 26w x 4s."""
    with torch.device("meta"):
        model = build_res2net()
    for stage, width in (("res2", 26), ("res3", 52), ("res4", 104), ("res5", 208)):
        block = getattr(model, stage)[0]
        assert [tuple(c.weight.shape) for c in block.convs] == [(width, width, 3, 3)] * 3
        assert block.conv1.weight.shape[0] == 4 * width
    assert [len(getattr(model, f"res{i}")) for i in (2, 3, 4, 5)] == [3, 4, 23, 3]


@pytest.mark.parametrize(("dcn", "want"), [(False, 52.56), (True, 55.04)])
def test_number_of_parameters_in_vfnet(dcn: bool, want: float) -> None:
    """Millions in the reference's detector, which counts the factors of frozen norms."""
    config = load_config("vfnet/vfnet_r50_fpn_1x.py")
    config.model.backbone.bottom_up = L(build_res2net)(deform_stages=[3, 4, 5] if dcn else [])
    config.model.head.dcn_on_last_conv = dcn
    with torch.device("meta"):
        model = instantiate(config.model)
    count = sum(p.numel() for p in model.parameters())
    count += sum(2 * m.num_features for m in model.modules() if isinstance(m, FrozenBatchNorm2d))
    assert count / 1e6 == pytest.approx(want, rel=0.001)


@pytest.mark.parametrize(("version", "kind"), [(1, DeformConvPack), (2, ModulatedDeformConvPack)])
def test_deformable_stages_learn_on_the_cpu(version: int, kind: type) -> None:
    torch.manual_seed(0)
    model = small(deform_stages=[3, 4, 5], deform_version=version)
    deformable = {k: m for k, m in model.named_modules() if isinstance(m, DeformConvPack)}
    assert {type(m) for m in deformable.values()} == {kind}
    blocks = {"res3": 4, "res4": 6, "res5": 3}
    assert set(deformable) == {
        f"{s}.{i}.convs.{j}" for s, n in blocks.items() for i in range(n) for j in range(3)
    }
    outputs = model(torch.randn(2, 3, 96, 96))
    sum(x.square().mean() for x in outputs.values()).backward()
    for name, layer in deformable.items():
        assert layer.weight.grad.any(), name
        assert layer.conv_offset.weight.grad.any(), name
        assert layer.norm.weight.grad.any(), name


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, set()), (1, {"stem"}), (2, {"stem", "res2"})]
)
def test_frozen_stages_stay_and_others_learn(freeze_at: int, frozen: set[str]) -> None:
    torch.manual_seed(0)
    model = small(freeze_at=freeze_at, norm="BN").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(x.square().mean() for x in model(torch.randn(2, 3, 96, 96)).values()).backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[0] for k in changed} == {"stem", "res2", "res3", "res4", "res5"} - frozen
    for name in {"stem", "res2", "res3", "res4", "res5"} - frozen:
        assert {k for k in before if k.startswith(f"{name}.")} <= changed, name


def test_norms_keep_their_statistics_by_default() -> None:
    norms = {type(m) for m in small().res3.modules() if "Norm" in type(m).__name__}
    assert norms == {StaticBatchNorm2d}


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="depth must be 50, 101 or 152, got 18"):
        build_res2net(18)
    with pytest.raises(ValueError, match="scales must be at least 2"):
        small(scales=1)
