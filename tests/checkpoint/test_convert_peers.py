"""Checkpoints of the detectors that the papers compare with, and VGG16 for SSD."""

import json
import re
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from torch import Tensor, nn
from vfnet_yolof.checkpoint import CheckpointError, CheckpointMismatchError, convert_state_dict
from vfnet_yolof.checkpoint.backbones import (
    convert_backbone_state_dict,
    describe_pixels,
    is_backbone,
)
from vfnet_yolof.config.packaged import load_config

KEYS = {
    "baselines/retinanet_mmdet_r50_fpn_1x": "retinanet_r50_fpn",
    "atss/atss_r50_fpn_1x": "atss_r50_fpn",
    "foveabox/foveabox_r50_fpn_1x": "fovea_r50_fpn",
    "reppoints/reppoints_r50_fpn_1x": "reppoints_r50_fpn",
    "ssd/ssd512_vgg16": "ssd512_vgg16",
}
# Of VFNet's table 5: the weights that its authors publish.
TABLE_5 = {
    f"ablations/vfnet_t5_{name}_{loss}": keys
    for name, keys in (
        ("retinanet", "retinanet_r50_fpn"),
        ("foveabox", "fovea_r50_fpn"),
        ("reppoints", "reppoints_r50_fpn"),
        ("atss", "atss_r50_fpn"),
    )
    for loss in ("fl", "vfl")
}


def source_of(golden: Path, keys: str) -> dict[str, Tensor]:
    """All names of the reference, without values."""
    shapes = json.loads((golden / f"{keys}.keys.json").read_text())
    return {k: torch.empty(shape, device="meta") for k, shape in shapes.items()}


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return instantiate(load_config(f"{name}.py").model)


@pytest.mark.parametrize("name", KEYS | TABLE_5)
def test_every_tensor_has_its_place(golden: Path, name: str) -> None:
    model = build(name)
    source = source_of(golden, (KEYS | TABLE_5)[name])
    converted, report = convert_state_dict(source, model)
    assert {k: v.shape for k, v in converted.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert report.num_source == len(source)
    assert set(report.dropped.values()) <= {"batch counter of a norm that is frozen here"}
    assert not report.added


def old_ssd_name(key: str) -> str:
    """As MMDetection named them before 2.14: the neck in the backbone, heads without a sequence."""
    if m := re.fullmatch(r"neck\.extra_layers\.(\d)\.(\d)\.conv\.(.*)", key):
        return f"backbone.extra.{2 * int(m[1]) + int(m[2])}.{m[3]}"
    key = key.replace("neck.l2_norm", "backbone.l2_norm")
    return re.sub(r"_convs\.(\d)\.0\.", r"_convs.\1.", key)


def test_old_names_of_ssd(golden: Path) -> None:
    source = source_of(golden, "ssd512_vgg16")
    renamed = {old_ssd_name(k): v for k, v in source.items()}
    assert len(renamed.keys() - source.keys()) == 1 + 2 * (10 + 14)  # weights and biases
    model = build("ssd/ssd512_vgg16")
    _, report = convert_state_dict(source, model)
    _, old = convert_state_dict(renamed, model)
    assert old.renamed == {old_ssd_name(k): v for k, v in report.renamed.items()}


@pytest.mark.parametrize(
    ("keys", "config", "message"),
    [
        ("retinanet_r50_fpn", "baselines/retinanet_r50_fpn_1x", "anchors in another order.*Octave"),
        ("atss_r50_fpn", "ablations/vfnet_t3_fcos_atss", "deltas of an anchor.*AnchorDeltas"),
        ("fovea_r50_fpn", "ablations/vfnet_t3_vfl", "use a config of foveabox/"),
        ("vfnet_r50_fpn", "atss/atss_r50_fpn_1x", "use a config without AnchorDeltas"),
        ("vfnet_r50_fpn", "foveabox/foveabox_r50_fpn_1x", "another detector than FoveaBox"),
    ],
)
def test_weights_that_mean_other_boxes_are_refused(
    golden: Path, keys: str, config: str, message: str
) -> None:
    """Where names and shapes would fit, or nearly so."""
    with pytest.raises(CheckpointMismatchError, match=f"mean other boxes.*{message}"):
        convert_state_dict(source_of(golden, keys), build(config))


def test_an_unknown_tensor_is_refused(golden: Path) -> None:
    source = source_of(golden, "reppoints_r50_fpn")
    source["bbox_head.reppoints_pts_third_out.weight"] = torch.zeros(18, 256, 1, 1)
    with pytest.raises(CheckpointError, match=r"1 of 372 tensors.*RepPoints.*pts_third_out"):
        convert_state_dict(source, build("reppoints/reppoints_r50_fpn_1x"))


@pytest.mark.parametrize("name", KEYS)
def test_a_file_of_mmdetection_1_is_refused(golden: Path, name: str) -> None:
    source = {"state_dict": source_of(golden, KEYS[name]), "meta": {"mmdet_version": "1.2.0+c0"}}
    with pytest.raises(CheckpointError, match=r"written by MMDetection 1\.2\.0\+c0"):
        convert_state_dict(source, build(name))
    source["meta"]["mmdet_version"] = "2.10.0"
    convert_state_dict(source, build(name))


@pytest.fixture(scope="module")
def ssd() -> nn.Module:
    return build("ssd/ssd512_vgg16")


def test_vgg16_of_caffe(golden: Path, ssd: nn.Module) -> None:
    source = {
        k.removeprefix("backbone."): v
        for k, v in source_of(golden, "ssd512_vgg16").items()
        if k.startswith("backbone.")
    }
    assert is_backbone({"state_dict": source})
    converted, report = convert_backbone_state_dict({"state_dict": source}, ssd)
    assert len(report.renamed) == len(source) == len(converted) == 30
    assert not report.dropped and not report.added


def test_vgg16_of_torchvision(ssd: nn.Module) -> None:
    """Its fully connected layers are thinned out to fc6 and fc7."""
    with torch.device("meta"):
        names = torchvision.models.vgg16().state_dict()
    source = {k: torch.zeros(v.shape) for k, v in names.items()}
    outputs, inputs = torch.arange(4096.0), torch.arange(512 * 49.0)
    source["classifier.0.weight"] = inputs.expand(4096, -1) + 1e5 * (outputs[:, None] % 7)
    source["classifier.0.bias"] = outputs
    source["classifier.3.weight"] = outputs[:, None] + 4096 * outputs
    converted, report = convert_backbone_state_dict(source, ssd)
    assert report.num_source == len(source) == 32
    assert set(report.dropped) == {"classifier.6.weight", "classifier.6.bias"}
    fc6, fc7 = (converted[f"backbone.bottom_up.{x}.weight"] for x in ("fc6", "fc7"))
    for output, channel, row, column in ((0, 0, 0, 0), (5, 3, 1, 2), (1023, 511, 2, 2)):
        place = (channel * 7 + 3 * row) * 7 + 3 * column
        want = source["classifier.0.weight"][4 * output, place]
        assert fc6[output, channel, row, column] == want
    assert converted["backbone.bottom_up.fc6.bias"].tolist() == list(range(0, 4096, 4))
    assert fc7[5, 9, 0, 0] == 20 + 4096 * 36
    assert "every fourth output" in report.added["backbone.bottom_up.fc6.weight"]
    assert "pixel_std" in describe_pixels(report, "RGB")


def test_a_vgg16_of_another_kind_is_refused(ssd: nn.Module) -> None:
    with torch.device("meta"):
        with_norms = torchvision.models.vgg16_bn().state_dict()
    with pytest.raises(CheckpointError, match="are not known"):
        convert_backbone_state_dict(with_norms, ssd)
