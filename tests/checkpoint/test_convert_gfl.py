"""MMDetection's GFL becomes ours, completely; the first release's, for its own configs."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from golden_recipe import reference_state_dict
from mmdet_names import mmdet_gfl
from torch import nn
from vfnet_yolof.checkpoint import (
    CheckpointMismatchError,
    convert_checkpoint,
    convert_state_dict,
    describe,
)
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import config_names, load_config

CONFIG = "gfl/gfl_r50_fpn_1x.py"
PROJECT = "bbox_head.integral.project"


def names_and_shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.layer4.2.conv2.weight", "backbone.bottom_up.res5.2.conv2.weight"),
        (
            "backbone.layer3.5.conv2.conv_offset.bias",
            "backbone.bottom_up.res4.5.conv2.conv_offset.bias",
        ),
        ("neck.fpn_convs.4.conv.weight", "backbone.top_block.p7.weight"),
        ("bbox_head.cls_convs.3.conv.weight", "head.cls_tower.3.conv.weight"),
        ("bbox_head.reg_convs.0.gn.bias", "head.reg_tower.0.norm.bias"),
        ("bbox_head.gfl_cls.bias", "head.cls_logits.bias"),
        ("bbox_head.gfl_reg.weight", "head.reg.weight"),
        ("bbox_head.scales.4.scale", "head.scales.4.scale"),
    ],
)
def test_names(theirs: str, ours: str):
    source = mmdet_gfl(dcn_stages=(2, 3, 4))
    converted, report = convert_state_dict(source)
    assert report.layout == "MMDetection GFL"
    assert report.renamed[theirs] == ours
    assert converted[ours] is source[theirs]
    assert list(report.dropped) == [PROJECT]
    assert "bins" in report.dropped[PROJECT]
    assert len(converted) == len(source) - 1 == report.num_source - 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "GFL R-50-FPN, 4 convolutions per tower, 17 bins per side, 80 classes"),
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4), "offset_channels": 18},
            "GFL R-101-FPN with DCNv1 in res3 to res5, 4 convolutions per tower, "
            "17 bins per side, 80 classes",
        ),
        (
            {"blocks": (3, 4, 23, 3), "groups": 32, "dcn_stages": (3, 4), "num_classes": 3},
            "GFL X-101-32x4d-FPN with DCNv2 in res4 to res5, 4 convolutions per tower, "
            "17 bins per side, 3 classes",
        ),
        (
            {"bins": 13, "num_convs": 2},
            "GFL R-50-FPN, 2 convolutions per tower, 13 bins per side, 80 classes",
        ),
    ],
)
def test_what_a_checkpoint_looks_like(options: dict, text: str):
    _, report = convert_state_dict(mmdet_gfl(**options))
    assert report.description == text


def test_another_number_of_bins_is_refused():
    target, _ = convert_state_dict(mmdet_gfl())
    message = r"(?s)15 bins per side.*builds GFL R-50-FPN, .*17 bins.*reg.weight \(60, .*\(68, "
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(mmdet_gfl(bins=15), target)


def first_release(**options) -> dict[str, torch.Tensor]:
    source = mmdet_gfl(**options)
    source["bbox_head.distribution_project.project"] = source.pop(PROJECT)
    return source


def test_the_first_release() -> None:
    """GFocal's "81 classes" are 80 channels; its names are MMDetection's but for one buffer."""
    converted, report = convert_state_dict(first_release())
    assert report.layout == "GFocal (MMDetection 1.x) GFL"
    assert set(converted) == set(convert_state_dict(mmdet_gfl())[0])
    assert "80 classes" in report.description


@pytest.mark.parametrize("config", [n for n in config_names() if "/gfocal" in n])
def test_the_first_release_has_configs(config: str) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(config).model)
    assert model.box_geometry == "pixel indices"
    with pytest.raises(CheckpointMismatchError, match="use the gfl/gfl_... config"):
        convert_state_dict(mmdet_gfl(), model)
    # Past the question of geometry, what the few channels of these names do not fit is named.
    with pytest.raises(CheckpointMismatchError, match="differ in shape"):
        convert_state_dict(first_release(), model)


def test_the_first_releases_boxes_are_refused_by_other_configs() -> None:
    with torch.device("meta"):
        model = instantiate(load_config(CONFIG).model)
    with pytest.raises(
        CheckpointMismatchError, match=r"GFocal.*other boxes.*gfl/gfocal_r50_fpn_1x"
    ):
        convert_state_dict(first_release(), model)


def test_other_heads_are_no_gfl():
    shapes = {"head.reg.weight": (4, 8, 3, 3), "head.cls_logits.weight": (80, 8, 3, 3)}
    assert describe(shapes).detector is None
    assert describe(shapes).num_bins is None
    assert describe(shapes | {"head.reg.weight": (20, 8, 3, 3)}).num_bins == 5


@pytest.mark.golden
def test_reference_names_fill_our_model(golden: Path, tmp_path: Path):
    source = reference_state_dict(golden, "gfl_r50_fpn", "mmdet_models")
    source[PROJECT] = torch.linspace(0, 16, 17)
    model = instantiate(load_config(CONFIG).model)
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": source, "meta": {}}, path)
    result, report = convert_checkpoint(path, tmp_path / "ours.pth", model)
    assert result["model"].keys() == model.state_dict().keys()
    assert len(report.renamed) + len(report.dropped) == len(source)
    model.load_state_dict(result["model"])
    ours = model.state_dict()
    for theirs, name in report.renamed.items():
        assert torch.equal(ours[name], source[theirs]), theirs


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        ({}, []),
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4), "offset_channels": 18},
            ["depth=101", "deform_stages=[3,4,5]", "deform_version=1"],
        ),
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4)},
            ["depth=101", "deform_stages=[3,4,5]"],
        ),
        (
            {"blocks": (3, 4, 23, 3), "groups": 32, "dcn_stages": (3, 4)},
            ["depth=101", "num_groups=32", "width_per_group=4", "deform_stages=[4,5]"],
        ),
    ],
    ids=["R-50", "R-101-DCNv1", "R-101-DCNv2", "X-101-32x4d-DCNv2"],
)
def test_names_of_other_backbones(options: dict, overrides: list[str]):
    overrides = [f"model.backbone.bottom_up.{o}" for o in overrides]
    with torch.device("meta"):
        model = read_inference_config(CONFIG, overrides).build_model()
    _, report = convert_state_dict(mmdet_gfl(**options), model.state_dict().keys())
    assert report.description == str(describe(names_and_shapes(model)))
