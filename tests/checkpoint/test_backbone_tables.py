"""Key tables of backbones: every tensor of the models here has exactly one name there."""

import pytest
import torch
from backbone_names import caffe2_name, yolof_authors_name
from vfnet_yolof.checkpoint import apply_rules
from vfnet_yolof.checkpoint.backbone_tables import CAFFE2_RULES
from vfnet_yolof.checkpoint.yolof import CSPDARKNET_RULES
from vfnet_yolof.modeling.backbones import CSPDarkNet, build_resnet


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
