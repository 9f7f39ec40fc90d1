"""The losses of ATSS, with focal and quality focal loss, against MMDetection 3.3.

Boxes of the reference are deltas of anchors. A head that turns them into distances, made here for
the comparison, lets this project's detector see the same boxes: targets, weights, divisors and what
counts beyond an image's own padded size are then all its own.
"""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from golden_checks import CASES, LEVELS
from golden_recipe import reference_state_dict
from vfnet_yolof.checkpoint.mmdet import FPN_RULES, RESNET_RULES, TOWER_RULES
from vfnet_yolof.checkpoint.rules import Rule, apply_rules
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.box_coders import ClampedDeltaCoder, boxes_to_distances
from vfnet_yolof.modeling.heads import PointHead, PointPredictions
from vfnet_yolof.modeling.losses import FocalLoss, QualityFocalLoss

pytestmark = pytest.mark.golden("atss")

LOSSES = {"loss_cls": "loss_cls", "loss_bbox": "loss_box", "loss_centerness": "loss_centerness"}
SOURCES = {"atss_r50_fpn": FocalLoss(), "atss_qfl_r50_fpn": QualityFocalLoss()}
STDS = torch.tensor([0.1, 0.1, 0.2, 0.2])
HEAD_RULES = (
    Rule(r"bbox_head\.atss_cls\.(weight|bias)", r"head.cls_logits.\1"),
    Rule(r"bbox_head\.atss_reg\.(weight|bias)", r"head.reg.\1"),
    Rule(r"bbox_head\.atss_centerness\.(weight|bias)", r"head.centerness.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)


class DeltaHead(PointHead):
    """Distances to the sides of the boxes that deltas make of anchors of 8 strides."""

    def forward(self, features: list[torch.Tensor]) -> PointPredictions:
        logits, ltrb, centerness = [], [], []
        levels = self.levels(features)
        for stride, (scores, deltas, reg_feature) in zip(self.strides, levels, strict=True):
            height, width = deltas.shape[-2:]
            y, x = torch.meshgrid(
                torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij"
            )
            points = torch.stack([x, y], dim=-1).float()
            anchors = torch.cat([points - 4 * stride, points + 4 * stride], dim=-1)
            coder = ClampedDeltaCoder(center_clamp=None)
            boxes = coder.decode(deltas.permute(0, 2, 3, 1) * STDS, anchors)
            logits.append(scores)
            ltrb.append(boxes_to_distances(points, boxes).permute(0, 3, 1, 2))
            centerness.append(self.centerness(reg_feature))
        return PointPredictions(logits, ltrb, centerness=centerness)


@pytest.fixture(scope="module")
def model(golden: Path) -> torch.nn.Module:
    source = reference_state_dict(golden, "atss_r50_fpn", "mmdet_models")
    state, report = apply_rules(source, RESNET_RULES + FPN_RULES + TOWER_RULES + HEAD_RULES)
    assert not report.unmatched
    config = load_config("ablations/vfnet_t3_fcos_atss.py").model
    config.backbone.top_block._target_ = "vfnet_yolof.modeling.backbones.LastLevelP6P7NoReLU"
    model = instantiate(config)
    model.head = DeltaHead()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing
    assert all(key.endswith("num_batches_tracked") for key in unexpected)
    model.min_centerness_sum = 1.0  # MMDetection 3.3's
    return model


def test_head_outputs(model, golden: Path) -> None:
    """They are the reference's before anything is compared that is made of them."""
    numbers = np.load(golden / "atss_r50_fpn.npz")
    got = checks.predictions(model, golden)
    for i, level in enumerate(LEVELS):
        checks.check_map(got.logits[i], numbers, f"head/cls_logits/{level}")
        checks.check_map(got.centerness[i], numbers, f"head/centerness/{level}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source", SOURCES)
def test_losses(model, golden: Path, source: str, case: str) -> None:
    """Quality targets, cells of padding (``uneven``), and images without boxes in the divisors."""
    model.cls_loss = SOURCES[source]
    numbers = np.load(golden / f"{source}.npz")
    losses = checks.training_losses(model, golden, case)
    checks.check_losses(losses, numbers, case, LOSSES)


@torch.no_grad()
def test_quality_targets(model, golden: Path) -> None:
    """The numbers themselves that the quality focal loss is given."""
    seen = []

    def record(logits, pos_idx, classes, quality, *_):
        seen.append((pos_idx, quality))
        return logits.sum()

    model.cls_loss = record
    checks.training_losses(model, golden, "main")
    (pos_idx, quality), *_ = seen
    want = np.load(golden / "atss_qfl_r50_fpn.npz")["main/quality_of_positives"]
    # There: level by level, pictures in turn. Here: picture by picture.
    sizes = [-(-256 // s) * -(-320 // s) for s in model.points.strides]
    ends = torch.tensor(sizes).cumsum(0)
    image, location = pos_idx // sum(sizes), pos_idx % sum(sizes)
    level = torch.bucketize(location, ends, right=True)
    order = torch.argsort(level * 2 + image, stable=True)
    np.testing.assert_allclose(quality[order].numpy(), want, rtol=1e-4, atol=1e-5)
