"""The losses of ATSS, with focal and quality focal loss, against MMDetection 3.3.

Boxes are deltas of anchors, as there.
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
from vfnet_yolof.modeling.losses import FocalLoss, QualityFocalLoss
from vfnet_yolof.modeling.representations import AnchorDeltas

pytestmark = pytest.mark.golden("atss")

LOSSES = {"loss_cls": "loss_cls", "loss_bbox": "loss_box", "loss_centerness": "loss_quality"}
SOURCES = {"atss_r50_fpn": FocalLoss(), "atss_qfl_r50_fpn": QualityFocalLoss()}
HEAD_RULES = (
    Rule(r"bbox_head\.atss_cls\.(weight|bias)", r"head.cls_logits.\1"),
    Rule(r"bbox_head\.atss_reg\.(weight|bias)", r"head.reg.\1"),
    Rule(r"bbox_head\.atss_centerness\.(weight|bias)", r"head.quality.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)


@pytest.fixture(scope="module")
def model(golden: Path) -> torch.nn.Module:
    source = reference_state_dict(golden, "atss_r50_fpn", "mmdet_models")
    state, report = apply_rules(source, RESNET_RULES + FPN_RULES + TOWER_RULES + HEAD_RULES)
    assert not report.unmatched
    config = load_config("ablations/vfnet_t3_fcos_atss.py").model
    config.backbone.top_block._target_ = "vfnet_yolof.modeling.backbones.LastLevelP6P7NoReLU"
    config.head.representation = AnchorDeltas()
    config.min_quality_sum = 1.0  # MMDetection 3.3's
    model = instantiate(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing
    assert all(key.endswith("num_batches_tracked") for key in unexpected)
    return model


def test_head_outputs(model, golden: Path) -> None:
    """They are the reference's before anything is compared that is made of them."""
    numbers = np.load(golden / "atss_r50_fpn.npz")
    got = checks.predictions(model, golden)
    for i, level in enumerate(LEVELS):
        checks.check_map(got.logits[i], numbers, f"head/cls_logits/{level}")
        checks.check_map(got.quality_logits[i], numbers, f"head/centerness/{level}")


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
