"""SiMo and MiSo written out; what leaves them, and that all of them learns."""

import pytest
import torch
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.modeling.backbones import build_resnet
from vfnet_yolof.modeling.necks import MiSoEncoder, SiMoEncoder

FEATURES = ["res3", "res4", "res5"]
CHANNELS = 8


def body() -> nn.Module:
    return build_resnet(18, stem_channels=8, res2_channels=8, freeze_at=0)


def make(kind: str) -> nn.Module:
    """The four encoders of figure 8, eight channels wide."""
    torch.manual_seed(0)
    bottom_up = body()
    top = LastLevelP6P7(bottom_up.output_shape()["res5"].channels, CHANNELS, "res5")
    if kind == "mimo":
        return FPN(bottom_up, FEATURES, CHANNELS, top_block=top)
    if kind == "simo":
        return SiMoEncoder(bottom_up, out_channels=CHANNELS, top_block=top)
    if kind == "miso":
        return MiSoEncoder(bottom_up, FEATURES, CHANNELS)
    return FPN(bottom_up, ["res5"], CHANNELS)


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.weight.shape[-1] // 2)


def enlarged(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("mimo", {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ("simo", {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ("miso", {"p5": 32}),
        ("siso", {"p5": 32}),
    ],
)
def test_levels_are_those_announced_and_everything_learns(kind: str, levels: dict) -> None:
    encoder = make(kind)
    outputs = encoder(torch.randn(2, 3, 128, 192))
    shapes = encoder.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == levels
    assert list(outputs) == list(shapes) == list(levels)
    for name, stride in levels.items():
        assert outputs[name].shape == (2, CHANNELS, 128 // stride, -(-192 // stride))
    sum(x.square().sum() for x in outputs.values()).backward()
    unused = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert unused == []
    assert encoder.size_divisibility == 32


def test_simo_is_an_fpn_without_the_finer_laterals() -> None:
    encoder = make("simo")
    fpn = make("mimo")
    names = set(dict(encoder.named_parameters()))
    gone = set(dict(fpn.named_parameters())) - names
    assert gone == {f"fpn_lateral{i}.{kind}" for i in (3, 4) for kind in ("weight", "bias")}
    # With nothing from C3 and C4 the FPN computes the same.
    encoder.load_state_dict(fpn.state_dict(), strict=False)
    for i in (3, 4):
        nn.init.zeros_(fpn.get_submodule(f"fpn_lateral{i}").weight)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        want = fpn.eval()(x)
        for name, got in encoder.eval()(x).items():
            torch.testing.assert_close(got, want[name])


def test_miso_goes_down_and_up_again() -> None:
    encoder = make("miso").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        c3, c4, c5 = encoder.bottom_up(x).values()
        t5 = conv(encoder.fpn_lateral5, c5)
        t4 = conv(encoder.fpn_lateral4, c4) + enlarged(t5)
        n3 = conv(encoder.fpn_output3, conv(encoder.fpn_lateral3, c3) + enlarged(t4))
        n4 = conv(encoder.fpn_output4, t4) + conv(encoder.pan_down["p4"], n3)
        n5 = conv(encoder.fpn_output5, t5) + conv(encoder.pan_down["p5"], n4)
        want = conv(encoder.pan_output["p5"], n5)
        torch.testing.assert_close(encoder(x)["p5"], want, atol=1e-4, rtol=1e-4)


def test_simo_takes_no_more_levels_than_the_stride_has() -> None:
    assert list(SiMoEncoder(body(), out_channels=8, num_finer=0).output_shape()) == ["p5"]
    with pytest.raises(ValueError, match="num_finer"):
        SiMoEncoder(body(), out_channels=8, num_finer=6)
