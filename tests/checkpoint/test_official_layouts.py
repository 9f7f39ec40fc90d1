"""The names of published checkpoints fill the models of our rows: nothing missing, nothing left."""

import pytest
import torch
from detectron2.config import instantiate
from official_names import (
    encoder,
    fpn,
    gfl_head,
    pafpnx,
    res2net,
    resnet,
    vfnet_head,
    without_values,
    yolof_head,
)
from torch import nn
from vfnet_yolof.checkpoint import CheckpointMismatchError, convert_state_dict, describe
from vfnet_yolof.configs import load_config
from vfnet_yolof.modeling.backbones import LastLevelP6P7Norm, build_res2net
from vfnet_yolof.modeling.necks import PAFPNX

ALL_DCN = (2, 3, 4)
X32 = {"groups": 32, "width": 4}
X64 = {"groups": 64, "width": 4}
PLAIN = fpn() | vfnet_head()
DEFORMED = fpn() | vfnet_head(dcn=True)
GFL = fpn() | gfl_head()

LAYOUTS = {
    "vfnet/vfnet_r50_fpn_ms_2x": resnet(50) | PLAIN,
    "vfnet/vfnet_r50_dcn_fpn_ms_2x": resnet(50, dcn=ALL_DCN) | DEFORMED,
    "vfnet/vfnet_r101_fpn_2x": resnet(101) | PLAIN,
    "vfnet/vfnet_r101_dcn_fpn_ms_2x": resnet(101, dcn=ALL_DCN) | DEFORMED,
    "vfnet/vfnet_x101_32x4d_fpn_ms_2x": resnet(101, **X32) | PLAIN,
    "vfnet/vfnet_x101_32x4d_dcn_fpn_ms_2x": resnet(101, **X32, dcn=ALL_DCN) | DEFORMED,
    "vfnet/vfnet_x101_64x4d_fpn_ms_2x": resnet(101, **X64) | PLAIN,
    "vfnet/vfnet_x101_64x4d_dcn_fpn_ms_2x": resnet(101, **X64, dcn=ALL_DCN) | DEFORMED,
    "gfl/gfl_r101_fpn_ms_2x": resnet(101) | GFL,
    "gfl/gfl_r101_dcnv2_fpn_ms_2x": resnet(101, dcn=ALL_DCN) | GFL,
    "gfl/gfl_x101_32x4d_fpn_ms_2x": resnet(101, **X32) | GFL,
    "gfl/gfl_x101_32x4d_dcnv2_fpn_ms_2x": resnet(101, **X32, dcn=ALL_DCN) | GFL,
    "gfl/gfl_r101_dcnv1_fpn_ms_2x": resnet(101, dcn=ALL_DCN, version=1) | GFL,
    "gfl/gfl_x101_32x4d_dcnv1_fpn_ms_2x": resnet(101, **X32, dcn=(3, 4), version=1) | GFL,
    "yolof/yolof_r50_c5_1x": resnet(50) | encoder() | yolof_head(),
}


def build(name: str, *overrides: tuple[str, object]) -> nn.Module:
    config = load_config(f"{name}.py")
    for key, value in overrides:
        config.model[key] = value
    with torch.device("meta"):
        return instantiate(config.model)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_tensor_has_its_place(name: str) -> None:
    model = build(name)
    source = without_values(LAYOUTS[name])
    converted, report = convert_state_dict(source, model)
    ours = model.state_dict()
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}
    assert report.num_source == len(source)
    assert set(report.dropped.values()) <= {
        "batch counter of a norm that is frozen here",
        "positions of the bins, set by the configuration (reg_max)",
    }
    assert report.description == str(describe({k: tuple(v.shape) for k, v in ours.items()}))
    if not name.startswith("yolof"):
        assert not report.added


def test_biases_that_the_source_does_not_have_are_zero() -> None:
    """MMDetection's YOLOF has none in front of norms; the authors' has."""
    source = LAYOUTS["yolof/yolof_r50_c5_1x"]
    tensors = {name: torch.ones(shape) for name, shape in source.items()}
    converted, report = convert_state_dict(tensors, build("yolof/yolof_r50_c5_1x"))
    added = {k for k in report.added if k.endswith(".bias")}
    assert len(added) == 4 * 3 + 2 + 4
    assert all(converted[key].abs().max() == 0 for key in added)
    assert converted["backbone.lateral.bias"].min() == 1


@pytest.mark.parametrize("dcn", [(), ALL_DCN])
def test_res2net(dcn: tuple[int, ...]) -> None:
    with torch.device("meta"):
        bottom_up = build_res2net(101, deform_stages=[i + 1 for i in dcn])
    expected = {k: v.shape for k, v in bottom_up.state_dict().items()}
    head = vfnet_head(dcn=bool(dcn))
    converted, _ = convert_state_dict(without_values(res2net(101, dcn=dcn) | fpn() | head))
    prefix = "backbone.bottom_up."
    found = {k.removeprefix(prefix): v.shape for k, v in converted.items() if k.startswith(prefix)}
    counters = {k for k in found if k not in expected and k.endswith("num_batches_tracked")}
    assert {k: v for k, v in found.items() if k not in counters} == expected


def test_neck_of_vfnet_x() -> None:
    with torch.device("meta"):
        neck = PAFPNX(
            build_res2net(101, deform_stages=[3, 4, 5]),
            ["res3", "res4", "res5"],
            384,
            "GN",
            LastLevelP6P7Norm(384, 384),
        )
    expected = {k: v.shape for k, v in neck.state_dict().items() if not k.startswith("bottom_up")}
    head = vfnet_head(num_convs=4, width=384, dcn=True)
    source = res2net(101, dcn=ALL_DCN) | pafpnx() | head
    converted, report = convert_state_dict(without_values(source))
    found = {
        k.removeprefix("backbone."): v.shape
        for k, v in converted.items()
        if k.startswith("backbone.") and "bottom_up" not in k
    }
    assert found == expected
    assert report.num_source == len(converted) == len(source)


def test_offsets_under_their_old_names() -> None:
    """Before mmcv's layers owned their offsets these stood beside them, with "_offset"."""
    source = resnet(50, dcn=ALL_DCN) | DEFORMED
    old = {k.replace("conv2.conv_offset", "conv2_offset"): v for k, v in source.items()}
    old = {k.replace(".conv.conv_offset", ".conv_offset"): v for k, v in old.items()}
    assert sum("conv2_offset" in k for k in old) == 2 * 13
    assert "bbox_head.reg_convs.2.conv_offset.bias" in old
    model = build("vfnet/vfnet_r50_dcn_fpn_ms_2x")
    converted, _ = convert_state_dict(without_values(old), model)
    assert set(converted) == set(model.state_dict())


@pytest.mark.parametrize(
    ("theirs", "ours", "difference"),
    [
        ("gfl/gfl_r101_dcnv1_fpn_ms_2x", "gfl/gfl_r101_dcnv2_fpn_ms_2x", r"conv_offset.*18.*27"),
        (
            "vfnet/vfnet_r101_dcn_fpn_ms_2x",
            "vfnet/vfnet_r101_fpn_2x",
            "no place in the model",
        ),
        ("vfnet/vfnet_x101_64x4d_fpn_ms_2x", "vfnet/vfnet_x101_32x4d_fpn_ms_2x", "differ"),
        (
            "gfl/gfl_r101_fpn_ms_2x",
            "vfnet/vfnet_r101_fpn_2x",
            "not in the checkpoint: head.reg_conv",
        ),
        ("yolof/yolof_r50_c5_1x", "gfl/gfl_r101_fpn_ms_2x", "not in the checkpoint"),
    ],
)
def test_a_wrong_pair_is_refused(theirs: str, ours: str, difference: str) -> None:
    message = f"(?s)the configuration builds.*{difference}"
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(without_values(LAYOUTS[theirs]), build(ours))


def test_offsets_tell_the_version() -> None:
    for name, text in (("dcnv1", "DCNv1 in res3 to res5"), ("dcnv2", "DCNv2 in res3 to res5")):
        _, report = convert_state_dict(without_values(LAYOUTS[f"gfl/gfl_r101_{name}_fpn_ms_2x"]))
        assert text in report.description
