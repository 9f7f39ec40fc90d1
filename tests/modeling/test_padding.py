"""Locations beyond an image's own padded size, which larger images of its batch make.

As negatives they count or not by detector and loss, as the references have it; see
docs/detectors.md.
"""

import math
from typing import Any

import pytest
import torch
from tiny import picture, tiny_atss, tiny_gfl, tiny_vfnet
from torch import Tensor, nn
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    GuidedFocalLoss,
    QualityFocalLoss,
    VarifocalLoss,
)
from vfnet_yolof.modeling.meta_arch.base import feature_sizes, flatten_rows
from vfnet_yolof.modeling.meta_arch.outputs import Targets

# Each is padded to the other's longer side, with more than half of its cells in vain.
WIDE, TALL = picture(size=(64, 256), seed=1), picture(size=(256, 64), seed=2)
LEFT_OUT = VarifocalLoss(padding_is_negative=False)


def predicted(model: nn.Module, batch: list[dict]) -> tuple[Any, Targets]:
    images = model.preprocess_image(batch)
    pyramid = model.backbone(images.tensor)
    features = [pyramid[name] for name in model.head_in_features]
    targets = model.assign(images, feature_sizes(features), [x["instances"] for x in batch])
    return model.head(features), targets


def beyond(model: nn.Module) -> Tensor:
    """(N * R,) of the two pictures' batch, by the position of each location."""
    points = torch.cat(
        model.points.points([(-(-256 // s),) * 2 for s in model.points.strides], model.device)
    )
    return torch.cat([points[:, 1] >= 64, points[:, 0] >= 64])


def gradient_of_padding(model: nn.Module, batch: list[dict]) -> Tensor:
    """The gradient of the classification loss at the logits of these locations."""
    predictions, targets = predicted(model, batch)
    logits = [x.detach().requires_grad_() for x in predictions.logits]
    model.losses(predictions._replace(logits=logits), targets)["loss_cls"].backward()
    return flatten_rows([x.grad for x in logits])[beyond(model)]


@pytest.mark.parametrize("make", [tiny_vfnet, tiny_atss, tiny_gfl])
@pytest.mark.parametrize(
    ("loss", "counts"),
    [
        (FocalLoss(), False),
        (QualityFocalLoss(), False),
        (GuidedFocalLoss(), False),
        (LEFT_OUT, False),
        (VarifocalLoss(), True),
    ],
    ids=["focal", "quality", "guided", "varifocal without", "varifocal"],
)
def test_what_counts_as_a_negative(make, loss, counts: bool) -> None:
    model = make()
    model.cls_loss = loss
    gradient = gradient_of_padding(model, [WIDE, TALL])
    assert len(gradient) > 500
    assert (gradient != 0).all() if counts else (gradient == 0).all()


def literal_loss(kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Of each logit: the focal loss with alpha 1/4, or equation 2 of VFNet with alpha 3/4."""
    p = logits.double().sigmoid()
    negative, positive = -(1 - p).log(), -p.log()
    if kind == "focal":
        return torch.where(targets > 0, 0.25 * (1 - p) ** 2 * positive, 0.75 * p**2 * negative)
    entropy = targets * positive + (1 - targets) * negative
    return torch.where(targets > 0, targets * entropy, 0.75 * p**2 * negative)


@pytest.mark.parametrize("raw", [False, True], ids=["full", "raw"])
@pytest.mark.parametrize(
    ("kind", "loss", "counts"),
    [
        ("focal", FocalLoss(), False),
        ("varifocal", VarifocalLoss(), True),
        ("varifocal", LEFT_OUT, False),
    ],
)
@torch.no_grad()
def test_vfnets_losses_by_a_literal_formula(raw: bool, kind: str, loss, counts: bool) -> None:
    model = tiny_vfnet(head__refine=not raw)
    model.cls_loss = loss
    predictions, targets = predicted(model, [WIDE, TALL])
    logits = flatten_rows(predictions.logits)
    ltrb = flatten_rows(predictions.sides)[targets.pos_idx].double()
    boxes = torch.cat([targets.points - ltrb[:, :2], targets.points + ltrb[:, 2:]], dim=1)
    low = torch.maximum(boxes[:, :2], targets.boxes[:, :2])
    high = torch.minimum(boxes[:, 2:], targets.boxes[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (boxes, targets.boxes)]
    dense = torch.zeros_like(logits, dtype=torch.float64)
    dense[targets.pos_idx, targets.classes] = overlap / (sum(areas) - overlap)
    each = literal_loss(kind, logits, dense)
    if not counts:
        each = each[~beyond(model)]
    got = model.losses(predictions, targets)["loss_cls"].item()
    assert got == pytest.approx(each.sum().item() / len(targets.pos_idx), rel=1e-5)


def test_images_of_one_size_have_none() -> None:
    model = tiny_vfnet()
    assert predicted(model, [WIDE, WIDE])[1].valid is None
    assert torch.equal(~predicted(model, [WIDE, TALL])[1].valid, beyond(model))


def test_a_positive_that_misses_its_box_still_counts_as_one() -> None:
    """A target of 0 is that of a negative; RetinaNet and RepPoints with this loss have it so."""
    logits, place = torch.zeros(1, 1), torch.tensor([0])
    got = [
        VarifocalLoss(min_iou=least)(logits, place, place, torch.zeros(1)).item()
        for least in (1e-6, 0.0)
    ]
    assert got == pytest.approx([1e-6 * math.log(2), 0.75 * 0.25 * math.log(2)])
