"""Key tables of backbones: every tensor of the models here has exactly one name there."""

import re

import pytest
import torch
from vfnet_yolof.checkpoint import apply_rules
from vfnet_yolof.checkpoint.backbone_tables import CAFFE2_RULES, CSPDARKNET_RULES
from vfnet_yolof.modeling.backbones import CSPDarkNet, build_resnet

PARTS = {
    "down": "base_layer",
    "bypass": "partial_transition1",
    "entry": "stage_layers.0.downsample",
    "exit": "partial_transition2",
    "fuse": "fuse_transition",
}


def yolof_authors_name(key: str) -> str:
    """``res2.blocks.1.conv1.norm.weight`` -> ``backbone.layer2.stage_layers.1.bn1.weight``."""
    if m := re.fullmatch(r"stem\.conv\.(norm\.)?(\w+)", key):
        return f"backbone.{'bn1' if m[1] else 'conv1'}.{m[2]}"
    if m := re.fullmatch(r"res(\d)\.blocks\.(\d)\.conv(\d)\.(norm\.)?(\w+)", key):
        kind = "bn" if m[4] else "conv"
        return f"backbone.layer{m[1]}.stage_layers.{m[2]}.{kind}{m[3]}.{m[5]}"
    m = re.fullmatch(r"res(\d)\.(\w+)\.(norm\.)?(\w+)", key)
    return f"backbone.layer{m[1]}.{PARTS[m[2]]}.{1 if m[3] else 0}.{m[4]}"


def caffe2_name(key: str) -> str:
    """``res2.0.conv1.norm.bias`` -> ``res2_0_branch2a_bn_b``."""
    kind = {
        "norm.weight": "bn_s",
        "norm.bias": "bn_b",
        "norm.running_mean": "bn_rm",
        "norm.running_var": "bn_riv",
        "weight": "w",
    }
    if m := re.fullmatch(r"stem\.conv1\.(.+)", key):
        return "backbone." + ("conv1_w" if m[1] == "weight" else f"res_conv1_{kind[m[1]]}")
    m = re.fullmatch(r"res(\d)\.(\d+)\.(\w+)\.(norm\.\w+|weight)", key)
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[m[3]]
    return f"backbone.res{m[1]}_{m[2]}_branch{branch}_{kind[m[4]]}"


def test_the_yolof_authors_cspdarknet() -> None:
    with torch.device("meta"):
        ours = CSPDarkNet().state_dict()
    source = {yolof_authors_name(key): tensor for key, tensor in ours.items()}
    assert "backbone.layer3.stage_layers.7.bn2.running_var" in source
    assert "backbone.layer5.stage_layers.0.downsample.1.num_batches_tracked" in source
    converted, report = apply_rules(source, CSPDARKNET_RULES)
    assert report.unmatched == []
    assert converted.keys() == {f"backbone.bottom_up.{key}" for key in ours}
    assert all(converted[f"backbone.bottom_up.{key}"] is ours[key] for key in ours)


@pytest.mark.parametrize("options", [{}, {"num_groups": 64, "width_per_group": 4}])
def test_caffe2_resnets(options: dict) -> None:
    with torch.device("meta"):
        ours = build_resnet(101, norm="FrozenBN", **options).state_dict()
    source = {caffe2_name(key): tensor for key, tensor in ours.items()}
    source |= dict.fromkeys(
        [
            "backbone.conv1_b",
            "backbone.fc1000_w",
            "backbone.pred_b",
            "backbone.res2_0_branch2a_w_momentum",
            "backbone.lr",
        ],
        torch.zeros(1),
    )
    converted, report = apply_rules(source, CAFFE2_RULES)
    assert report.unmatched == []
    assert len(report.dropped) == 5
    assert converted.keys() == {f"backbone.bottom_up.{key}" for key in ours}
    assert all(converted[f"backbone.bottom_up.{key}"] is ours[key] for key in ours)
