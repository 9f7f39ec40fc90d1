"""The rows of the papers' tables: each differs from the row it stands on as its table says."""

from typing import Any

import pytest
import torch
from config_diff import ABSENT, changes
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn
from vfnet_yolof.config.overrides import apply_overrides
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.layers.deform_conv import ModulatedDeformConvPack
from vfnet_yolof.modeling.backbones import build_res2net
from vfnet_yolof.modeling.meta_arch import GFocal
from vfnet_yolof.modeling.necks import PAFPNX
from vfnet_yolof.modeling.points import PixelIndexPoints

DEEP = {"model.backbone.bottom_up.depth": 101}
SINGLE = "vfnet/vfnet_r50_fpn_1x"
MULTI = "vfnet/vfnet_r50_fpn_ms_2x"
GFL = "gfl/gfl_r50_fpn_ms_2x"
CSP = "yolof/yolof_csp_d53_dc5_3x"
TEST_SIZE = "dataloader.test.mapper.augmentations.0"
AUGMENTATION = "dataloader.train.mapper.augmentations.0"
SCHEDULER = "lr_multiplier.scheduler"
DOUBLE_SCHEDULE = {
    f"{SCHEDULER}.milestones.0": 16,
    f"{SCHEDULER}.milestones.1": 22,
    f"{SCHEDULER}.num_updates": 24,
    "lr_multiplier.warmup_length": 500 / 175920,
    "train.max_iter": 175920,
}


def multi_scale(shortest: int, longest: int) -> dict[str, Any]:
    return {
        f"{AUGMENTATION}.short_edge_length": ABSENT,
        f"{AUGMENTATION}.short_edge_length.0": shortest,
        f"{AUGMENTATION}.short_edge_length.1": longest,
        f"{AUGMENTATION}.sample_style": "range",
    }


def groups(number: int) -> dict[str, Any]:
    prefix = "model.backbone.bottom_up"
    return {f"{prefix}.num_groups": number, f"{prefix}.width_per_group": 4}


def dcn(*stages: int, version: int = 2, head: bool = False) -> dict[str, Any]:
    prefix = "model.backbone.bottom_up"
    change = {f"{prefix}.deform_stages.{i}": stage for i, stage in enumerate(stages)}
    change[f"{prefix}.deform_version"] = version
    return change | ({"model.head.dcn_on_last_conv": True} if head else {})


IN_HEAD = dcn(3, 4, 5, head=True)
BOTTOM_UP = "model.backbone.bottom_up"
RES2NET = DEEP | {f"{BOTTOM_UP}._target_": build_res2net}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    MULTI: (SINGLE, DOUBLE_SCHEDULE | multi_scale(480, 960)),
    "vfnet/vfnet_r50_dcn_fpn_ms_2x": (MULTI, IN_HEAD),
    "vfnet/vfnet_r101_fpn_1x": (SINGLE, DEEP),
    "vfnet/vfnet_r101_fpn_2x": (SINGLE, DEEP | DOUBLE_SCHEDULE),
    "vfnet/vfnet_r101_fpn_ms_2x": (MULTI, DEEP),
    "vfnet/vfnet_r101_dcn_fpn_ms_2x": (MULTI, DEEP | IN_HEAD),
    "vfnet/vfnet_x101_32x4d_fpn_ms_2x": (MULTI, DEEP | groups(32)),
    "vfnet/vfnet_x101_32x4d_dcn_fpn_ms_2x": (MULTI, DEEP | groups(32) | IN_HEAD),
    "vfnet/vfnet_x101_64x4d_fpn_ms_2x": (MULTI, DEEP | groups(64)),
    "vfnet/vfnet_x101_64x4d_dcn_fpn_ms_2x": (MULTI, DEEP | groups(64) | IN_HEAD),
    "vfnet/vfnet_r2_101_fpn_ms_2x": (MULTI, RES2NET),
    "vfnet/vfnet_r2_101_dcn_fpn_ms_2x": ("vfnet/vfnet_r2_101_fpn_ms_2x", IN_HEAD),
    "vfnet/vfnetx_r2_101_1200": (
        "vfnet/vfnetx_r2_101_800",
        {f"{TEST_SIZE}.short_edge_length": 1200, f"{TEST_SIZE}.max_size": 1800},
    ),
    "yolof/yolof_csp_d53_dc5_9x": (
        CSP,
        {
            f"{SCHEDULER}.milestones.0": 187500,
            f"{SCHEDULER}.milestones.1": 197500,
            f"{SCHEDULER}.num_updates": 202500,
            "lr_multiplier.warmup_length": 1500 / 202500,
            "train.max_iter": 202500,
        },
    ),
    "yolof/yolof_csp_d53_dc5_9x_stage2_3x": (
        CSP,
        {
            "model.assigner.max_iou": 0.8,
            "train.init_checkpoint": "./output/yolof_csp_d53_dc5_9x/001/model_final.pth",
        },
    ),
    GFL: ("gfl/gfl_r50_fpn_1x", DOUBLE_SCHEDULE | multi_scale(480, 800)),
    "gfl/gfl_r101_fpn_ms_2x": (GFL, DEEP),
    "gfl/gfl_r101_dcnv2_fpn_ms_2x": (GFL, DEEP | dcn(3, 4, 5)),
    "gfl/gfl_x101_32x4d_fpn_ms_2x": (GFL, DEEP | groups(32)),
    "gfl/gfl_x101_32x4d_dcnv2_fpn_ms_2x": (GFL, DEEP | groups(32) | dcn(3, 4, 5)),
    "gfl/gfl_r101_dcnv1_fpn_ms_2x": (GFL, DEEP | dcn(3, 4, 5, version=1)),
    "gfl/gfl_x101_32x4d_dcnv1_fpn_ms_2x": (GFL, DEEP | groups(32) | dcn(4, 5, version=1)),
    "atss/atss_r101_dcn_fpn_ms_2x": ("atss/atss_r101_fpn_ms_2x", IN_HEAD),
    "atss/atss_x101_64x4d_fpn_ms_2x": ("atss/atss_r101_fpn_ms_2x", groups(64)),
    "atss/atss_x101_64x4d_dcn_fpn_ms_2x": ("atss/atss_r101_fpn_ms_2x", groups(64) | IN_HEAD),
}
BACKBONES = ("r50", "r101", "x101_32x4d", "x101_64x4d", "r2_101")
FIRST_RELEASE = {
    "model._target_": GFocal,
    "model.points._target_": PixelIndexPoints,
    "model.points.offset": ABSENT,
    "model.postprocessor.candidates": "location",
}
# Rows that differ from another one in a setting or two.
ROWS |= {
    f"vfnet/vfnet_{name}_fpn_ms640_2x": (
        f"vfnet/vfnet_{name}_fpn_ms_2x",
        {f"{AUGMENTATION}.short_edge_length.0": 640, f"{AUGMENTATION}.short_edge_length.1": 800},
    )
    for name in (*BACKBONES, *(f"{x}_dcn" for x in BACKBONES))
} | {
    f"{MULTI}_test900": (MULTI, {f"{TEST_SIZE}.short_edge_length": 900}),
    "yolof/yolof_x101_64x4d_c5_ms_3x_ms_test": (
        "yolof/yolof_x101_64x4d_c5_ms_3x",
        {"train.init_checkpoint": "./output/yolof_x101_64x4d_c5_ms_3x/001/model_final.pth"},
    ),
    "yolof/yolof_csp_d53_dc5_9x_ignore075": (
        "yolof/yolof_csp_d53_dc5_9x",
        {"model.assigner.max_iou": 0.75},
    ),
    "yolof/yolof_r50_dc5_1x_d2468": (
        "yolof/yolof_r50_dc5_1x",
        {f"model.backbone.dilations.{i}": 2 * i + 2 for i in range(4)},
    ),
    "gfl/gfocal_r50_fpn_ms_2x": (GFL, FIRST_RELEASE),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(name: str) -> None:
    base, expected = ROWS[name]
    found = changes(f"{base}.py", f"{name}.py")
    assert found == expected


def test_the_baseline_is_the_other_detector_under_the_same_recipe() -> None:
    atss, vfnet = (load_config(f"{x}.py") for x in ("atss/atss_r101_fpn_ms_2x", MULTI))
    assert atss.model.backbone.bottom_up.depth == 101
    augmentation = atss.dataloader.train.mapper.augmentations[0]
    assert list(augmentation.short_edge_length) == [640, 800]
    assert atss.lr_multiplier == vfnet.lr_multiplier
    assert atss.optimizer == vfnet.optimizer
    assert atss.train.max_iter == vfnet.train.max_iter


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        (f"{AUGMENTATION}.short_edge_length=[640,800]", "train", [640, 800]),
        ("dataloader.test.mapper.augmentations.0.short_edge_length=900", "test", 900),
    ],
)
def test_the_papers_other_scales_are_overrides(override: str, key: str, value: Any) -> None:
    config = load_config(f"{MULTI}.py")
    apply_overrides(config, [override])
    assert config.dataloader[key].mapper.augmentations[0].short_edge_length == value


def test_vfnet_x() -> None:
    config = load_config("vfnet/vfnetx_r2_101_800.py")
    model = build(config)
    assert model.head.cls_logits.in_channels == 384
    assert len(model.head.cls_tower) == 4
    assert isinstance(model.head.reg_tower[3].conv, ModulatedDeformConvPack)
    assert isinstance(model.backbone, PAFPNX)
    assert model.postprocessor.candidates == "location"
    nms = model.postprocessor.nms
    assert (nms.method, nms.iou_threshold, nms.min_score) == ("linear", 0.65, 1e-3)
    rate = instantiate(config.lr_multiplier)
    epochs = [rate(epoch / 59) for epoch in (35.9, 36.1, 40.1, 41.001, 41.999, 42.001, 58.999)]
    assert epochs == pytest.approx([1, 0.1, 0.01, 1, 0.01, 1, 0.01], rel=0.01)
    assert config.train.max_iter == 59 * 7330
    assert config.train.swa.start * 59 == pytest.approx(41)
    assert config.train.swa.cycles == 18
    # the authors' configs/_base_/swa.py: swa_optimizer, swa_load_from = "best_bbox_mAP.pth"
    assert (config.train.swa.fresh_optimizer, config.train.swa.from_best) == (True, True)


def test_yolof_on_cspdarknet() -> None:
    config = load_config(f"{CSP}.py")
    model = build(config)
    assert model.backbone.output_shape()["encoded"].stride == 16
    assert [block.conv2.dilation for block in model.backbone.blocks] == [
        (i, i) for i in range(1, 9)
    ]
    assert isinstance(model.backbone.blocks[0].conv1.norm, nn.SyncBatchNorm)
    assert isinstance(model.head.cls_tower[0].activation, nn.LeakyReLU)
    assert model.anchor_generator.num_anchors == [6]
    assert (model.assigner.topk, model.assigner.min_iou, model.assigner.max_iou) == (8, 0.1, 0.7)
    assert config.optimizer.lr == 0.04
    config.optimizer.params.model = model
    groups = instantiate(config.optimizer).param_groups
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(0.04, 1e-4), (0.04, 0)}


def test_yolof_treats_biases_as_weights() -> None:
    """Norms do not decay, and the backbone learns at a third of the rate, but for its norms."""
    config = load_config("yolof/yolof_r50_c5_1x.py")
    config.optimizer.params.model = build(config)
    groups = instantiate(config.optimizer).param_groups
    found = {(round(group["lr"], 5), group["weight_decay"]) for group in groups}
    assert found == {(0.12, 1e-4), (0.12, 0.0), (0.04008, 1e-4)}


def test_the_phases_of_yolof_follow_one_another() -> None:
    """9x, 3x and 3x: the last averages 12 checkpoints."""
    names = [f"yolof_csp_d53_dc5_{name}" for name in ("9x", "9x_stage2_3x", "swa")]
    first, second, last = (load_config(f"yolof/{name}.py") for name in names)
    assert second.train.init_checkpoint == f"./output/{names[0]}/001/model_final.pth"
    assert last.train.init_checkpoint == f"./output/{names[1]}/001/model_best.pth"
    assert sum(c.train.max_iter for c in (first, second, last)) == 15 * 22500
    assert (last.train.swa.enabled, last.train.swa.start, last.train.swa.cycles) == (True, 0, 12)
    assert last.model.assigner.max_iou == second.model.assigner.max_iou == 0.8
    rate = instantiate(last.lr_multiplier)
    assert [rate(0.999 * i / 12) for i in range(1, 13)] == pytest.approx([0.01] * 12, abs=0.02)


def build(config: DictConfig) -> nn.Module:
    with torch.device("meta"):
        return instantiate(config.model)
