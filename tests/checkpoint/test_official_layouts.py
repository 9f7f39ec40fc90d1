"""The names of published checkpoints fill the models of our rows: nothing missing, nothing left."""

import pytest
import torch
from detectron2.config import instantiate
from official_names import (
    csp_darknet,
    detectron2_resnet,
    encoder,
    fpn,
    gfl_head,
    pafpnx,
    res2net,
    resnet,
    vfnet_head,
    without_values,
    yolof_authors,
    yolof_head,
)
from torch import nn
from vfnet_yolof.checkpoint import CheckpointMismatchError, convert_state_dict, describe
from vfnet_yolof.config.packaged import load_config

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
    "vfnet/vfnet_r2_101_fpn_ms_2x": res2net(101) | PLAIN,
    "vfnet/vfnet_r2_101_dcn_fpn_ms_2x": res2net(101, dcn=ALL_DCN) | DEFORMED,
    "vfnet/vfnetx_r2_101_800": res2net(101, dcn=ALL_DCN)
    | pafpnx()
    | vfnet_head(num_convs=4, width=384, dcn=True),
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


CSP = yolof_authors(csp_darknet(), channels=1024, blocks=8, anchors=6)


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        (
            "yolof/yolof_r50_c5_1x",
            yolof_authors(detectron2_resnet(50)),
            "YOLOF R-50, 4 blocks in the encoder, 2 and 4 convolutions in the towers, "
            "5 anchors per location, 80 classes",
        ),
        (
            "yolof/yolof_csp_d53_dc5_9x",
            CSP,
            "YOLOF CSPDarkNet-53, 8 blocks in the encoder, 2 and 4 convolutions in the towers, "
            "6 anchors per location, 80 classes",
        ),
    ],
)
def test_yolofs_authors(name: str, source: dict, text: str) -> None:
    model = build(name)
    converted, report = convert_state_dict(without_values(source), model)
    expected = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in converted.items()} == expected
    assert report.description == text
    assert report.num_source == len(source)
    assert not report.added


def test_a_dilated_last_stage_shows_in_the_number_of_anchors_only() -> None:
    """Dilations have no weights: C5 and DC5 differ in their heads, by the anchors."""
    source = without_values(yolof_authors(detectron2_resnet(50), anchors=6))
    dilated = build("yolof/yolof_r50_dc5_1x")
    assert set(convert_state_dict(source, dilated)[0]) == set(dilated.state_dict())
    with pytest.raises(CheckpointMismatchError, match="(?s)6 anchors.*builds.*5 anchors") as caught:
        convert_state_dict(source, build("yolof/yolof_r50_c5_1x"))
    assert "head.cls_logits.weight (480" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vfnet/vfnet_r2_101_dcn_fpn_ms_2x", "R2-101-26wx4s-FPN with DCNv2 in res3 to res5"),
        ("vfnet/vfnetx_r2_101_800", "R2-101-26wx4s-PAFPN with DCNv2 in res3 to res5"),
        ("vfnet/vfnet_x101_64x4d_fpn_ms_2x", "VFNet X-101-64x4d-FPN, 3 convolutions"),
    ],
)
def test_descriptions(name: str, text: str) -> None:
    assert text in convert_state_dict(without_values(LAYOUTS[name]))[1].description


def test_counters_of_averaged_weights_are_dropped() -> None:
    source = without_values(LAYOUTS["vfnet/vfnetx_r2_101_800"])
    averaged = {f"module.{k}": v for k, v in source.items()} | {"n_averaged": torch.tensor(18)}
    _, report = convert_state_dict(averaged, build("vfnet/vfnetx_r2_101_800"))
    assert report.dropped["n_averaged"] == "counter of averaged weights (EMA, SWA)"


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
