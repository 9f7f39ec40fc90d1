"""VFNet's table 5 and GFL's table 1b: other detectors with the losses that the papers compare."""

import re
from pathlib import Path
from typing import Any

import pytest
from config_diff import ABSENT, changes
from vfnet_yolof.config.packaged import config_dir, config_names, find_config, load_config
from vfnet_yolof.modeling.losses import FocalLoss, QualityFocalLoss, VarifocalLoss

LOSS = "model.cls_loss."
FOCAL = {LOSS + "_target_": FocalLoss, LOSS + "alpha": 0.25}  # gamma is VFNet's
QUALITY = {
    LOSS + "_target_": QualityFocalLoss,
    LOSS + "alpha": ABSENT,
    LOSS + "gamma": ABSENT,
    LOSS + "beta": 2.0,
}
VARIFOCAL = {LOSS + "_target_": VarifocalLoss, LOSS + "alpha": 0.75}
# With anchors and with points that are matched by IoU, the authors' loss leaves the padding out.
VARIFOCAL_ON_IOU = VARIFOCAL | {LOSS + "padding_is_negative": False, LOSS + "min_iou": 0.0}
OF_VFNET = {LOSS + "iou_weighted": ABSENT, LOSS + "padding_is_negative": ABSENT}

WARM_UP = {"lr_multiplier.warmup_factor": 0.1}
BASES = {
    "retinanet": "baselines/retinanet_mmdet_r50_fpn_1x",
    "foveabox": "foveabox/foveabox_r50_fpn_1x",
    "reppoints": "reppoints/reppoints_r50_fpn_1x",
    "atss": "atss/atss_r50_fpn_1x",
    "vfnet": "vfnet/vfnet_r50_fpn_1x",
}
TABLE_5: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{x}_fl": (BASES[x], WARM_UP) for x in ("retinanet", "foveabox", "reppoints")},
    "atss_fl": (BASES["atss"], WARM_UP | {"model.min_quality_sum": 1e-12}),
    "vfnet_fl": (BASES["vfnet"], FOCAL | OF_VFNET),
    "vfnet_vfl": (BASES["vfnet"], {}),
    "vfnet_gfl": (BASES["vfnet"], QUALITY | OF_VFNET),
    **{
        f"{x}_gfl": (f"ablations/vfnet_t5_{x}_fl", QUALITY)
        for x in ("retinanet", "foveabox", "reppoints", "atss")
    },
    "retinanet_vfl": ("ablations/vfnet_t5_retinanet_fl", VARIFOCAL_ON_IOU),
    "reppoints_vfl": ("ablations/vfnet_t5_reppoints_fl", VARIFOCAL_ON_IOU),
    "atss_vfl": ("ablations/vfnet_t5_atss_fl", VARIFOCAL),
    "foveabox_vfl": ("ablations/vfnet_t5_foveabox_fl", VARIFOCAL | {LOSS + "gamma": 2.0}),
}
TABLE_1B: dict[str, tuple[str, dict[str, Any]]] = {
    "foveabox": (BASES["foveabox"], {}),
    "retinanet": (
        BASES["retinanet"],
        {
            "model.box_loss.beta": 0.11,
            "train.clip_grad.enabled": True,
            "lr_multiplier.warmup_factor": 1 / 3,
        },
    ),
    "ssd512": ("ssd/ssd512_vgg16", {}),
    "foveabox_qfl": ("ablations/gfl_t1b_foveabox", QUALITY),
    "retinanet_qfl": ("ablations/gfl_t1b_retinanet", QUALITY),
    "ssd512_qfl": (
        "ablations/gfl_t1b_ssd512",
        {
            LOSS + "_target_": QualityFocalLoss,
            LOSS + "ratio": ABSENT,
            LOSS + "beta": 2.0,
            "model.head.background": False,
            "model.head.prior_prob": 0.01,
        },
    ),
}
ROWS = {f"vfnet_t5_{k}": v for k, v in TABLE_5.items()}
ROWS |= {f"gfl_t1b_{k}": v for k, v in TABLE_1B.items()}

# AP on val2017, as printed.
PUBLISHED = {
    "vfnet_t5_retinanet": [36.5, 37.3, 37.4],
    "vfnet_t5_foveabox": [36.3, 36.9, 37.2],
    "vfnet_t5_reppoints": [38.3, 39.2, 39.7],
    "vfnet_t5_atss": [39.3, 39.8, 40.2],
    "vfnet_t5_vfnet": [40.0, 41.1, 41.6],
    "gfl_t1b_foveabox": [36.4, 37.0],
    "gfl_t1b_retinanet": [35.6, 36.4],
    "gfl_t1b_ssd512": [29.4, 30.2],
}
LOSSES = {"vfnet_t5": ("_fl", "_gfl", "_vfl"), "gfl_t1b": ("", "_qfl")}


def test_every_row_is_described_here() -> None:
    found = {Path(n).stem for n in config_names() if re.search("/(vfnet_t5|gfl_t1b)_", n)}
    assert found == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row: str) -> None:
    base, expected = ROWS[row]
    assert changes(f"{base}.py", f"ablations/{row}.py") == expected


@pytest.mark.parametrize("detector", PUBLISHED)
def test_published_figures_are_quoted(detector: str) -> None:
    found = []
    for loss in next(v for k, v in LOSSES.items() if detector.startswith(k)):
        text = (config_dir() / "ablations" / f"{detector}{loss}.py").read_text()
        found.append(float(re.search(r"not measured here: (\d+\.\d)\.", text)[1]))
    assert found == PUBLISHED[detector]


def test_the_reading_of_ssd_with_qfl_is_marked_as_ours() -> None:
    text = (config_dir() / "ablations/gfl_t1b_ssd512_qfl.py").read_text()
    assert "Our reading" in text and "none are\nmined" in text


def test_the_recipe_of_table_5_is_told() -> None:
    for name in ("retinanet", "foveabox", "reppoints"):
        text = Path(find_config(f"ablations/vfnet_t5_{name}_vfl.py")).read_text()
        assert "4 GPUs with 4 images each" in text and "--num-gpus 4" in text


def test_a_row_is_found_under_its_old_name() -> None:
    with pytest.warns(FutureWarning, match=r"is now ablations/vfnet_t5_vfnet_fl\.py"):
        config = load_config("ablations/vfnet_t5_fl.py")
    assert config == load_config("ablations/vfnet_t5_vfnet_fl.py")
