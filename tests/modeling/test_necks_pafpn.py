"""PAFPN and the neck of VFNet-X: the second path written out, shapes, names, what learns."""

import pytest
import torch
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn
from torch.nn import functional as F
from vfnet_yolof.layers.deform_conv import ModulatedDeformConvPack
from vfnet_yolof.modeling.backbones import LastLevelP6P7Norm, build_resnet
from vfnet_yolof.modeling.necks import PAFPN, PAFPNX

FEATURES = ["res3", "res4", "res5"]


def body() -> nn.Module:
    return build_resnet(18, stem_channels=8, res2_channels=8, freeze_at=0)


def neck(kind: type = PAFPN, **options) -> PAFPN:
    torch.manual_seed(0)
    model = kind(body(), FEATURES, 64, **options)
    for name, parameter in model.named_parameters():
        if "bottom_up" not in name and "offset" not in name and parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def apply(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Convolution and norm. The deformable ones begin as 0.5 times the plain ones."""
    factor = 0.5 if isinstance(conv, ModulatedDeformConvPack) else 1.0
    x = F.conv2d(x, factor * conv.weight, conv.bias, conv.stride, conv.weight.shape[-1] // 2)
    return x if conv.norm is None else F.group_norm(x, 32, conv.norm.weight, conv.norm.bias)


@pytest.mark.parametrize(
    ("kind", "norm", "refined"),
    [
        (PAFPN, "", ["p4", "p5"]),
        (PAFPN, "GN", ["p4", "p5"]),
        (PAFPNX, "GN", ["p3", "p4", "p5"]),
    ],
)
def test_the_two_paths(kind: type, norm: str, refined: list[str]) -> None:
    model = neck(kind, norm=norm)
    assert list(model.pan_output) == refined
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        c3, c4, c5 = model.bottom_up(x).values()
        t5 = apply(model.fpn_lateral5, c5)
        t4 = apply(model.fpn_lateral4, c4) + t5.repeat_interleave(2, 2).repeat_interleave(2, 3)
        t3 = apply(model.fpn_lateral3, c3) + t4.repeat_interleave(2, 2).repeat_interleave(2, 3)
        n3 = apply(model.fpn_output3, t3)
        n4 = apply(model.fpn_output4, t4) + apply(model.pan_down["p4"], n3)
        n5 = apply(model.fpn_output5, t5) + apply(model.pan_down["p5"], n4)
        outputs = model(x)
    for name, want in {"p3": n3, "p4": n4, "p5": n5}.items():
        if name in refined:
            want = apply(model.pan_output[name], want)
        torch.testing.assert_close(outputs[name], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "top_block"),
    [
        (PAFPN, lambda: LastLevelP6P7(64, 64, "p5")),
        (PAFPN, lambda: LastLevelP6P7(64, 64, "res5")),
        (PAFPNX, lambda: LastLevelP6P7Norm(64, 64)),
        (PAFPNX, lambda: None),
    ],
)
def test_shapes_are_those_announced(kind: type, top_block) -> None:
    model = neck(kind, top_block=top_block())
    names = ["p3", "p4", "p5"] + (["p6", "p7"] if model.top_block is not None else [])
    outputs, shapes = model(torch.randn(1, 3, 128, 192)), model.output_shape()
    assert list(outputs) == list(shapes) == names
    for name, x in outputs.items():
        stride = shapes[name].stride
        sides = [-(-side // stride) for side in (128, 192)]
        assert list(x.shape) == [1, shapes[name].channels, *sides] == [1, 64, *sides]
    assert model.size_divisibility == 32


def test_extra_levels_come_from_the_outputs_of_the_second_path() -> None:
    model = neck(PAFPNX, top_block=LastLevelP6P7Norm(64, 64))
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 128, 128))
        p6 = apply(model.top_block.p6, outputs["p5"])
        torch.testing.assert_close(outputs["p6"], p6, atol=1e-5, rtol=1e-5)
        p7 = apply(model.top_block.p7, p6.relu())
        torch.testing.assert_close(outputs["p7"], p7, atol=1e-5, rtol=1e-5)


def test_names_and_shapes_of_the_vfnet_x_neck() -> None:
    """Norms after all convolutions but the lateral ones; DCNv2 with 27 offset channels."""
    with torch.device("meta"):
        model = PAFPNX(body(), FEATURES, top_block=LastLevelP6P7Norm(384, 384))
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if "bottom_up" not in name
    }
    want: dict[str, tuple[int, ...]] = {}
    for level, channels in ((3, 16), (4, 32), (5, 64)):
        want[f"fpn_lateral{level}.weight"] = (384, channels, 1, 1)
        want[f"fpn_lateral{level}.bias"] = (384,)
    normed = [f"fpn_output{i}" for i in (3, 4, 5)] + [f"top_block.p{i}" for i in (6, 7)]
    normed += [f"pan_down.p{i}" for i in (4, 5)] + [f"pan_output.p{i}" for i in (3, 4, 5)]
    for name in normed:
        want[f"{name}.weight"] = (384, 384, 3, 3)
        want[f"{name}.norm.weight"] = want[f"{name}.norm.bias"] = (384,)
    for level in (3, 4, 5):
        want[f"pan_output.p{level}.conv_offset.weight"] = (27, 384, 3, 3)
        want[f"pan_output.p{level}.conv_offset.bias"] = (27,)
    assert shapes == want


@pytest.mark.parametrize("kind", [PAFPN, PAFPNX])
def test_every_parameter_learns(kind: type) -> None:
    model = neck(kind, norm="GN", top_block=LastLevelP6P7Norm(64, 64)).train()
    outputs = model(torch.randn(2, 3, 128, 128))
    sum((x * torch.randn_like(x)).sum() for x in outputs.values()).backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if "bottom_up" not in name and not parameter.grad.any()
    ]
    assert silent == []
