"""The rows of the papers' tables: each differs from the row it stands on as its table says."""

from typing import Any

import pytest
from config_diff import ABSENT, changes
from vfnet_yolof.configs import load_config
from vfnet_yolof.engine.overrides import apply_overrides

DEEP = {"model.backbone.bottom_up.depth": 101}
SINGLE = "vfnet/vfnet_r50_fpn_1x"
MULTI = "vfnet/vfnet_r50_fpn_ms_2x"
GFL = "gfl/gfl_r50_fpn_ms_2x"
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
