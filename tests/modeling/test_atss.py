"""What ATSS learns and what its losses are divided by, against literal formulas."""

import math

import pytest
import reference
import torch
from tiny import empty_picture, picture, tiny_atss
from torch import Tensor, nn
from vfnet_yolof.modeling.heads import PointPredictions
from vfnet_yolof.modeling.losses import QualityFocalLoss, VarifocalLoss
from vfnet_yolof.modeling.meta_arch.base import feature_sizes, flatten_rows
from vfnet_yolof.modeling.meta_arch.outputs import Targets


def predicted(model: nn.Module, batch: list[dict]) -> tuple[PointPredictions, Targets]:
    """The head's predictions, and what they are compared with."""
    images = model.preprocess_image(batch)
    pyramid = model.backbone(images.tensor)
    features = [pyramid[name] for name in model.head_in_features]
    targets = model.assign(images, feature_sizes(features), [x["instances"] for x in batch])
    return model.head(features), targets


def literal_ious(predictions: PointPredictions, targets: Targets) -> list[float]:
    """IoU of each positive's predicted box with its ground truth, box by box."""
    raw = flatten_rows(predictions.sides)[targets.pos_idx]
    sides = (raw.exp() * targets.strides[:, None]).tolist()
    return [
        reference.iou((x - left, y - top, x + right, y + bottom), box)
        for (left, top, right, bottom), (x, y), box in zip(
            sides, targets.points.tolist(), targets.boxes.tolist(), strict=True
        )
    ]


def literal_varifocal(logit: float, target: float) -> float:
    """VarifocalNet, equation 2, alpha 0.75, gamma 2."""
    p = 1 / (1 + math.exp(-logit))
    if target > 0:
        return -target * (target * math.log(p) + (1 - target) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def literal_quality_focal(logit: float, target: float) -> float:
    """GFL, equation 2, beta 2."""
    p = 1 / (1 + math.exp(-logit))
    return -((target - p) ** 2) * (target * math.log(p) + (1 - target) * math.log(1 - p))


@pytest.mark.parametrize(
    ("loss", "literal"),
    [(VarifocalLoss(), literal_varifocal), (QualityFocalLoss(), literal_quality_focal)],
)
@torch.no_grad()
def test_the_quality_of_a_class_score_is_the_iou(loss, literal) -> None:
    """Of the decoded box with its ground truth, as in VFNet; centerness is something else."""
    model, batch = tiny_atss(), [picture(), picture(seed=2)]
    model.cls_loss = loss
    predictions, targets = predicted(model, batch)
    logits = flatten_rows(predictions.logits)
    quality = torch.zeros_like(logits, dtype=torch.float64)
    ious = literal_ious(predictions, targets)
    quality[targets.pos_idx, targets.classes] = torch.tensor(ious, dtype=torch.float64)
    total = sum(map(literal, logits.double().flatten().tolist(), quality.flatten().tolist()))
    got = model.losses(predictions, targets)["loss_cls"].item()
    assert got == pytest.approx(total / len(targets.pos_idx), rel=1e-4)


def test_the_quality_passes_no_gradient_to_the_boxes() -> None:
    model = tiny_atss()
    model.cls_loss = QualityFocalLoss()
    model([picture()])["loss_cls"].backward()
    assert model.head.reg.weight.grad is None
    assert model.head.cls_logits.weight.grad.any()


@torch.no_grad()
def test_every_image_counts_for_one_positive_at_least() -> None:
    """Also one without boxes: two of these make 2."""
    model, some = tiny_atss(), picture()
    counts = {}
    for name, batch in {
        "some": [some],
        "some and none": [some, empty_picture()],
        "none": [empty_picture()],
        "none twice": [empty_picture(), empty_picture()],
    }.items():
        _, targets = predicted(model, batch)
        counts[name] = targets.num_pos - len(targets.pos_idx)
    assert counts == {"some": 0, "some and none": 1, "none": 1, "none twice": 2}
    one, two = ([empty_picture()] * n for n in (1, 2))
    assert model(two)["loss_cls"].item() == pytest.approx(model(one)["loss_cls"].item())


def one_positive(model: nn.Module, ltrb: Tensor) -> tuple[PointPredictions, Targets]:
    """A single location that learns a box with these distances to its sides."""
    predictions, targets = predicted(model, [picture()])
    point = targets.points[:1]
    box = torch.cat([point - ltrb[:2], point + ltrb[2:]], dim=1)
    one = {k: getattr(targets, k)[:1] for k in ("pos_idx", "classes", "points", "strides")}
    return predictions, targets._replace(boxes=box, num_pos=torch.tensor(1.0), **one)


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "share"), [({}, 1.0), ({"min_quality_sum": 1.0}, 0.25)], ids=["fork", "mmdet"]
)
def test_the_sum_of_centerness_divides_the_box_loss(options: dict, share: float) -> None:
    """VFNet's authors divide by any sum; MMDetection 3.3 by 1 where it is smaller."""
    model = tiny_atss(**options)
    predictions, targets = one_positive(model, torch.tensor([2.0, 2.0, 8.0, 8.0]))  # 1/4
    (x1, y1, x2, y2) = targets.boxes[0].tolist()
    x, y = targets.points[0].tolist()
    raw = flatten_rows(predictions.sides)[targets.pos_idx[0]]
    left, top, right, bottom = (raw.exp() * targets.strides[0]).tolist()
    a, b = (x - left, y - top, x + right, y + bottom), (x1, y1, x2, y2)
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    overlap = reference.iou(a, b)
    union = (reference.area(a) + reference.area(b)) / (1 + overlap)
    giou = overlap - (hull - union) / hull
    got = model.losses(predictions, targets)["loss_box"].item()
    assert got == pytest.approx(2 * share * (1 - giou), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("least", [1e-12, 1.0])
def test_without_centerness_the_box_loss_is_zero(least: float) -> None:
    """A location on the border of its box."""
    model = tiny_atss(min_quality_sum=least)
    losses = model.losses(*one_positive(model, torch.tensor([0.0, 2.0, 8.0, 8.0])))
    assert losses["loss_box"] == 0
    assert model([empty_picture()])["loss_box"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_quality_sum": 1.5}, "min_quality_sum must be a number from 0 to 1, got 1.5"),
        ({"box_weight": -2.0}, "box_weight must not be negative, got -2.0"),
        ({"quality_weight": math.inf}, "quality_weight must be a finite number, got inf"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_atss(**options)
