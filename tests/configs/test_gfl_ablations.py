"""The rows of GFL's tables differ from the full model in what they state, and in nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from config_diff import ABSENT, changes
from tiny import picture, tiny_model
from vfnet_yolof.config.packaged import config_dir, config_names
from vfnet_yolof.modeling.assigners import FCOSAssigner
from vfnet_yolof.modeling.losses import FocalLoss, GuidedFocalLoss
from vfnet_yolof.modeling.meta_arch import CenternessTarget, EqualQuality, IoUTarget
from vfnet_yolof.modeling.representations import DiracDelta, GaussianDistribution

BASE = "gfl/gfl_r50_fpn_1x.py"
Changes = dict[str, Any]

BINS_GONE = {
    "model.head.representation.reg_max": ABSENT,
    "model.head.representation.interval": ABSENT,
}
DIRAC = {
    **BINS_GONE,
    "model.head.representation._target_": DiracDelta,
    "model.head.representation.unit": 1.0,  # strides, the default
    "model.dfl_weight": 0.0,
}
GAUSSIAN = {**BINS_GONE, "model.head.representation._target_": GaussianDistribution}
FOCAL = {
    "model.cls_loss._target_": FocalLoss,
    "model.cls_loss.alpha": 0.25,
    "model.cls_loss.gamma": 2.0,
    "model.cls_loss.beta": ABSENT,
}
FCOS = {
    "model.points.offset": 0.5,
    "model.assigner._target_": FCOSAssigner,
    "model.assigner.topk": ABSENT,
    "model.assigner.strides": "${..points.strides}",
    "model.assigner.center_radius": 1.5,
}


def branch(measure: type) -> Changes:
    return {
        **FOCAL,
        "model.box_quality._target_": measure,
        "model.head.quality": True,
        "model.quality": ABSENT,  # None in the base
        "model.quality._target_": measure,
    }


def guided(measure: type) -> Changes:
    rule = {"model.cls_loss._target_": GuidedFocalLoss, "model.cls_loss.eta": 1.5}
    both = {"model.cls_quality._target_": measure, "model.box_quality._target_": measure}
    return FOCAL | rule | both


def bins(reg_max: int, interval: float = 1.0) -> Changes:
    """What is not the full model's."""
    found: Changes = {}
    if reg_max != 16:
        found["model.head.representation.reg_max"] = reg_max
    if interval != 1.0:
        found["model.head.representation.interval"] = interval
    return found


CENTERNESS = branch(CenternessTarget)
GUIDED_BY_IOU = {k: v for k, v in guided(IoUTarget).items() if k != "model.cls_quality._target_"}
TABLE_1A = {
    "none": DIRAC | FOCAL | {"model.box_quality._target_": EqualQuality},
    "centerness": DIRAC | CENTERNESS,
    "iou": DIRAC | branch(IoUTarget),
    "centerness_guided": DIRAC | guided(CenternessTarget),
    "iou_guided": DIRAC | GUIDED_BY_IOU,  # the IoU is what the full model's loss gets, too
    "joint": DIRAC,
}
TABLE_2A = {
    "dirac": DIRAC | CENTERNESS,
    "gaussian": GAUSSIAN | CENTERNESS,
    "general": CENTERNESS | {"model.dfl_weight": 0.0},
    "general_dfl": CENTERNESS,
}
TABLE_3 = {"none": DIRAC | CENTERNESS, "qfl": DIRAC, "dfl": CENTERNESS, "both": {}}
ROWS: dict[str, Changes] = {
    **{f"gfl_t1a_{row}": found for row, found in TABLE_1A.items()},
    **{f"gfl_t1a_fcos_{row}": found | FCOS for row, found in TABLE_1A.items()},
    "gfl_t1c_beta00": DIRAC | {"model.cls_loss.beta": 0.0},
    "gfl_t1c_beta10": DIRAC | {"model.cls_loss.beta": 1.0},
    "gfl_t1c_beta20": DIRAC,
    "gfl_t1c_beta25": DIRAC | {"model.cls_loss.beta": 2.5},
    "gfl_t1c_beta40": DIRAC | {"model.cls_loss.beta": 4.0},
    **{f"gfl_t2a_{row}": found for row, found in TABLE_2A.items()},
    **{f"gfl_t2a_fcos_{row}": found | FCOS for row, found in TABLE_2A.items()},
    **{f"gfl_t2b_n{n}": bins(n) for n in (12, 14, 16, 18)},
    "gfl_t2c_interval05": bins(32, 0.5),
    "gfl_t2c_interval1": bins(16),
    "gfl_t2c_interval2": bins(8, 2.0),
    "gfl_t2c_interval4": bins(4, 4.0),
    **{f"gfl_t3_{row}": found for row, found in TABLE_3.items()},
}

# AP on val2017 of tables 1a, 1c, 2a, 2b, 2c and 3.
PUBLISHED = {
    "gfl_t1a": [38.0, 39.2, 39.6, 38.2, 38.9, 39.9],
    "gfl_t1a_fcos": [37.8, 38.5, 38.7, 37.9, 38.2, 39.0],
    "gfl_t1c": [37.6, 39.0, 39.9, 39.7, 38.2],
    "gfl_t2a": [39.2, 39.3, 39.3, 39.5],
    "gfl_t2a_fcos": [38.5, 38.6, 38.8, 39.0],
    "gfl_t2b": [40.1, 40.2, 40.2, 40.1],
    "gfl_t2c": [40.2, 40.2, 39.9, 39.8],
    "gfl_t3": [39.2, 39.9, 39.5, 40.2],
}


def file(row: str) -> str:
    return f"ablations/{row}.py"


def test_every_row_is_described_here() -> None:
    found = {Path(n).stem for n in config_names() if n.startswith("ablations/gfl_")}
    assert {row for row in found if not row.startswith("gfl_t1b_")} == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row: str) -> None:
    assert changes(BASE, file(row)) == ROWS[row]


@pytest.mark.parametrize("row", TABLE_3)
def test_the_small_rows_change_the_same(row: str) -> None:
    small = f"gfl/small_t3_{row}_shapes.py"
    assert changes("gfl/gfl_small_shapes.py", small) == TABLE_3[row]


def test_published_figures_are_quoted() -> None:
    quoted: dict[str, list[float]] = {}
    for row in ROWS:
        text = (config_dir() / file(row)).read_text()
        group = re.match(r"gfl_t\d[a-c]?(_fcos)?", row)[0]
        figure = re.search(r"Published AP on val2017, not measured here: (\d+\.\d)\.", text)
        quoted.setdefault(group, []).append(float(figure[1]))
    assert quoted == PUBLISHED


def losses(row: str) -> dict[str, float]:
    return {k: v.item() for k, v in tiny_model(file(row))([picture()]).items()}


@pytest.fixture(scope="module")
def dirac_losses() -> dict[str, float]:
    return losses("gfl_t1a_joint")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("gfl_t3_none", {"loss_cls", "loss_box", "loss_quality"}),
        ("gfl_t3_qfl", {"loss_cls", "loss_box"}),
        ("gfl_t3_dfl", {"loss_cls", "loss_box", "loss_quality", "loss_dfl"}),
        ("gfl_t3_both", {"loss_cls", "loss_box", "loss_dfl"}),
        ("gfl_t2a_gaussian", {"loss_cls", "loss_box", "loss_quality", "loss_kl"}),
        ("gfl_t2a_general", {"loss_cls", "loss_box", "loss_quality"}),
        ("gfl_t1a_none", {"loss_cls", "loss_box"}),
        ("gfl_t1a_iou_guided", {"loss_cls", "loss_box"}),
    ],
)
def test_a_row_has_the_losses_of_its_parts(row: str, names: set[str]) -> None:
    assert set(losses(row)) == names


@pytest.mark.parametrize("beta", ["00", "10", "25", "40"])
def test_beta_changes_the_classification_loss_only(beta: str, dirac_losses) -> None:
    got = losses(f"gfl_t1c_beta{beta}")
    assert {k for k in got if got[k] != dirac_losses[k]} == {"loss_cls"}


def gradient(row: str) -> torch.Tensor:
    """Of the classification loss, at the last layer of the scores."""
    model = tiny_model(file(row))
    weight = model.head.cls_logits.weight
    return torch.autograd.grad(model([picture()])["loss_cls"], weight)[0]


def test_the_measure_of_quality_changes_what_learns_from_it() -> None:
    """Same weights, same boxes: only what a row weighs or learns differs."""
    centerness, iou = losses("gfl_t1a_centerness"), losses("gfl_t1a_iou")
    assert {k for k in iou if iou[k] != centerness[k]} == {"loss_box", "loss_quality"}
    # Guiding keeps the sum of the loss and shifts weight between the positives.
    rows = [gradient(f"gfl_t1a_{row}") for row in ("none", "centerness_guided", "iou_guided")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        difference = (rows[one] - rows[other]).norm() / rows[one].norm()
        assert difference > 1e-3


@pytest.mark.parametrize(
    ("row", "count", "last"),
    [
        ("gfl_t2b_n12", 13, 12),
        ("gfl_t2b_n18", 19, 18),
        ("gfl_t2c_interval05", 33, 16),
        ("gfl_t2c_interval4", 5, 16),
        ("gfl_t3_both", 17, 16),
    ],
)
def test_bins(row: str, count: int, last: float) -> None:
    model = tiny_model(file(row))
    assert model.head.reg.out_channels == 4 * count
    assert model.representation.max_distance == last


def test_fcos_rows_change_the_assignment() -> None:
    def positives(row: str) -> list[int]:
        model, batch = tiny_model(file(row)), [picture()]
        sizes = [(-(-64 // s), -(-64 // s)) for s in model.points.strides]
        images = model.preprocess_image(batch)
        with torch.no_grad():
            return model.assign(images, sizes, [x["instances"] for x in batch]).pos_idx.tolist()

    atss, fcos = positives("gfl_t2a_dirac"), positives("gfl_t2a_fcos_dirac")
    assert atss != fcos
    assert min(len(atss), len(fcos)) > 0
