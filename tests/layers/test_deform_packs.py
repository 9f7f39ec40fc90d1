"""Deformable convolution as layers: parameters, blocks, export, precision."""

import warnings

import pytest
import torch
from torch import nn
from torchvision import ops
from vfnet_yolof.layers.deform_conv import (
    DeformConv2d,
    DeformConvPack,
    ModulatedDeformConvPack,
    deform_conv_implementation,
)

OWN_FORMS = ("embedding_bag", "grid_sample")


@pytest.mark.parametrize("pack", [DeformConvPack, ModulatedDeformConvPack])
def test_trace_holds_plain_operators_and_serves_other_sizes(pack: type[DeformConvPack]):
    layer = pack(3, 4, 3, stride=2, padding=1, bias=True).eval()
    nn.init.normal_(layer.conv_offset.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(layer, torch.randn(1, 3, 8, 9))
    graph = str(traced.inlined_graph)
    assert "grid_sampler" in graph
    assert "torchvision" not in graph
    assert "PythonOp" not in graph
    x = torch.randn(2, 3, 11, 6)
    torch.testing.assert_close(traced(x), layer(x), rtol=1e-4, atol=1e-5)


def test_export_holds_plain_operators():
    layer = ModulatedDeformConvPack(3, 4, 3, padding=1).eval()
    nn.init.normal_(layer.conv_offset.weight)
    x = torch.randn(1, 3, 8, 9)
    program = torch.export.export(layer, (x,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("grid_sampler" in target for target in targets)
    foreign = {t for t in targets if not t.startswith(("aten.", "<built-in function getitem>"))}
    assert not foreign
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


def test_pack_under_autocast_trains_in_float32():
    layer = ModulatedDeformConvPack(4, 4, 3, padding=1)
    nn.init.normal_(layer.conv_offset.weight)
    x = torch.randn(2, 4, 6, 6)
    want = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
        loss = got.square().sum()
        loss.backward()  # inside of autocast too
    assert torch.equal(got, want)
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["torchvision", *OWN_FORMS])
def test_half_precision_model(dtype: torch.dtype, form: str):
    layer = ModulatedDeformConvPack(8, 8, 3, padding=1, bias=True)
    nn.init.normal_(layer.conv_offset.weight, std=0.1)
    layer = layer.to(dtype)
    x = torch.randn(1, 8, 10, 10).to(dtype)
    with torch.no_grad(), deform_conv_implementation(form):
        got = layer(x)
        want = layer.float()(x.float())
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.1)


def test_packs_have_mmcv_names_and_shapes():
    shapes = {
        pack: {k: tuple(v.shape) for k, v in pack(4, 6, 3, bias=True).state_dict().items()}
        for pack in (DeformConvPack, ModulatedDeformConvPack)
    }
    common = {"weight": (6, 4, 3, 3), "bias": (6,)}
    for pack, channels in ((DeformConvPack, 18), (ModulatedDeformConvPack, 27)):
        assert shapes[pack] == {
            **common,
            "conv_offset.weight": (channels, 4, 3, 3),
            "conv_offset.bias": (channels,),
        }


def test_packs_start_as_convolutions():
    x = torch.randn(2, 4, 7, 8)
    for pack, factor in ((DeformConvPack, 1.0), (ModulatedDeformConvPack, 0.5)):
        layer = pack(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, deform_groups=2)
        want = factor * nn.functional.conv2d(x, layer.weight, None, 2, 2, 2, groups=2)
        torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-5)


def test_modulated_pack_splits_offsets_before_masks():
    layer = ModulatedDeformConvPack(2, 2, 3, padding=1, deform_groups=2)
    nn.init.normal_(layer.conv_offset.weight)
    x = torch.randn(1, 2, 5, 5)
    first, second, logits = layer.conv_offset(x).chunk(3, dim=1)
    want = ops.deform_conv2d(
        x, torch.cat((first, second), 1), layer.weight, padding=1, mask=logits.sigmoid()
    )
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-4)


def test_norm_then_activation_follow():
    layer = DeformConv2d(4, 6, 3, padding=1, norm=nn.GroupNorm(2, 6), activation=torch.relu)
    x, offset = torch.randn(1, 4, 5, 5), torch.randn(1, 18, 5, 5)
    plain = ops.deform_conv2d(x, offset, layer.weight, padding=1)
    torch.testing.assert_close(layer(x, offset), layer.norm(plain).relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"groups": 3}, {"deform_groups": 3}])
def test_groups_must_divide_the_channels(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="does not divide"):
        DeformConv2d(4, 6, 3, **wrong)
