"""Losses, coders, assigners and NMS against the reference implementations' own numbers."""

import numpy as np
import pytest
import torch
from golden_checks import cases, params
from torchvision.ops import box_convert
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.assigners import ATSSAssigner, UniformAssigner
from vfnet_yolof.modeling.boxes import (
    ClampedDeltaCoder,
    boxes_to_distances,
    clip_boxes,
    distances_to_boxes,
)
from vfnet_yolof.modeling.heads.anchor_head import with_objectness
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    aligned_iou,
    distribution_focal_loss,
    giou_loss,
    quality_focal_loss,
    varifocal_loss,
)
from vfnet_yolof.modeling.representations import GeneralDistribution, integral

pytestmark = pytest.mark.golden


def reduce_as_reference(loss: torch.Tensor, numbers: dict[str, np.ndarray]) -> torch.Tensor:
    """Sum over ``avg_factor``, or the mean where none was given."""
    avg_factor = float(numbers["avg_factor"])
    return loss.mean() if avg_factor < 0 else loss.sum() / avg_factor


def check_loss(loss: torch.Tensor, logits: torch.Tensor, numbers: dict[str, np.ndarray]) -> None:
    """Each value of a loss, what it is reduced to, and the gradient at its logits."""
    np.testing.assert_allclose(loss.detach().numpy(), numbers["loss_none"], rtol=1e-5, atol=1e-6)
    total = reduce_as_reference(loss, numbers)
    np.testing.assert_allclose(total.item(), numbers["loss"], rtol=1e-5, atol=1e-7)
    total.backward()
    np.testing.assert_allclose(logits.grad.numpy(), numbers["grad_logits"], rtol=1e-4, atol=1e-7)


@params("varifocal_loss")
def test_varifocal_loss(numbers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(numbers["logits"]).requires_grad_()
    weight = torch.from_numpy(numbers["weight"]) if "weight" in numbers else 1.0
    loss = float(numbers["loss_weight"]) * varifocal_loss(
        logits,
        torch.from_numpy(numbers["target"]),
        alpha=float(numbers["alpha"]),
        gamma=float(numbers["gamma"]),
        iou_weighted=bool(numbers["iou_weighted"]),
        reduction="none",
    )
    loss = loss * weight
    check_loss(loss, logits, numbers)


@params("quality_focal_loss")
def test_quality_focal_loss(numbers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(numbers["logits"]).requires_grad_()
    target = torch.zeros_like(logits)
    label = torch.from_numpy(numbers["label"])
    positive = (label < logits.shape[1]).nonzero()[:, 0]
    target[positive, label[positive]] = torch.from_numpy(numbers["score"])[positive]
    weight = torch.from_numpy(numbers["weight"])[:, None] if "weight" in numbers else 1.0
    loss = quality_focal_loss(logits, target, beta=float(numbers["beta"]), reduction="none")
    loss = (float(numbers["loss_weight"]) * loss * weight).sum(1)
    check_loss(loss, logits, numbers)


@params("distribution_focal_loss")
def test_distribution_focal_loss(numbers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(numbers["logits"]).requires_grad_()
    target = torch.from_numpy(numbers["target"])
    weight = torch.from_numpy(numbers["weight"]) if "weight" in numbers else 1.0
    loss = distribution_focal_loss(logits, target, reduction="none")
    loss = float(numbers["loss_weight"]) * loss * weight
    check_loss(loss, logits, numbers)


@params("integral")
def test_integral(numbers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(numbers["logits"]).requires_grad_()
    by_side = logits.unflatten(-1, (4, -1))
    distances = integral(by_side)
    np.testing.assert_allclose(distances.detach().numpy(), numbers["distances"], rtol=1e-5)
    representation = GeneralDistribution(reg_max=by_side.shape[-1] - 1)
    assert torch.equal(representation.decode(logits), distances)
    if "loss_weights" in numbers:
        (distances * torch.from_numpy(numbers["loss_weights"])).sum().backward()
        want = numbers["grad_logits"]
        np.testing.assert_allclose(logits.grad.numpy(), want, rtol=1e-4, atol=1e-6)


@params("sigmoid_focal_loss")
def test_focal_loss(numbers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(numbers["logits"]).requires_grad_()
    rows, classes = np.nonzero(numbers["target"])
    loss = FocalLoss(float(numbers["alpha"]), float(numbers["gamma"]))(
        logits, torch.from_numpy(rows), torch.from_numpy(classes), torch.ones(len(rows))
    )
    np.testing.assert_allclose(loss.item(), numbers["loss_sum"], rtol=1e-5)
    loss.backward()
    want = numbers["grad_logits_of_sum"]
    np.testing.assert_allclose(logits.grad.numpy(), want, rtol=1e-4, atol=1e-6)


@params("giou_loss")
def test_giou_loss(numbers: dict[str, np.ndarray]) -> None:
    boxes = torch.from_numpy(numbers["pred"]).requires_grad_()
    targets = torch.from_numpy(numbers["target"])
    loss = giou_loss(boxes, targets)
    np.testing.assert_allclose(loss.detach().numpy(), numbers["loss_none"], rtol=1e-5, atol=1e-6)
    weight = torch.from_numpy(numbers["weight"]) if "weight" in numbers else 1.0
    total = float(numbers["loss_weight"]) * reduce_as_reference(loss * weight, numbers)
    np.testing.assert_allclose(total.item(), numbers["loss"], rtol=1e-5, atol=1e-6)
    total.backward()
    # At touching edges the subgradient is a matter of taste; compare where there is none.
    smooth = (boxes.detach()[:, :, None] - targets[:, None]).abs().amin((1, 2)) > 1e-3
    got, want = boxes.grad[smooth].numpy(), numbers["grad_pred"][smooth.numpy()]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
    iou = aligned_iou(boxes.detach(), targets)
    np.testing.assert_allclose(iou.numpy(), numbers["iou_aligned"], rtol=1e-5, atol=1e-6)


def test_distance_coder() -> None:
    (_, decode), (_, encode) = cases("distance_coder")
    boxes = distances_to_boxes(
        torch.from_numpy(decode["points"]), torch.from_numpy(decode["distance"])
    )
    np.testing.assert_allclose(boxes.numpy(), decode["boxes"], atol=1e-5)
    clipped = clip_boxes(boxes, (80, 90))
    np.testing.assert_allclose(clipped.numpy(), decode["boxes_clipped_h80_w90"], atol=1e-5)
    distances = boxes_to_distances(
        torch.from_numpy(encode["points"]), torch.from_numpy(encode["boxes"])
    )
    np.testing.assert_allclose(distances.numpy(), encode["distance"], atol=1e-5)


@params("atss_assigner")
def test_atss(numbers: dict[str, np.ndarray]) -> None:
    anchors = torch.from_numpy(numbers["anchors"])
    boxes = torch.from_numpy(numbers["gt_boxes"]).reshape(-1, 4)
    match = ATSSAssigner(int(numbers["topk"]))(
        anchors, boxes, level_sizes=numbers["num_level_anchors"].tolist()
    )
    assigned = match.box_of_each().numpy()
    want = numbers["assigned_gt"]
    ours_only, theirs_only = np.nonzero(assigned > want)[0], np.nonzero(want > assigned)[0]
    # Some boxes' 9th and 10th anchors are equally far. Which is taken is up to the reference's
    # top-k routine; ours takes the earlier one. Apart from these everything is the same.
    assert len(ours_only) == len(theirs_only) <= 1
    for ours, theirs in zip(ours_only, theirs_only, strict=True):
        box = boxes[assigned[ours]]
        assert assigned[ours] == want[theirs]
        assert ours < theirs
        center = (box[:2] + box[2:]) / 2
        offsets = (anchors[[ours, theirs], :2] + anchors[[ours, theirs], 2:]) / 2 - center
        distances = offsets.norm(dim=1)
        assert distances[0] == distances[1]


@pytest.mark.parametrize(("name", "numbers"), cases("yolof_box_transform"))
def test_clamped_delta_coder(name: str, numbers: dict[str, np.ndarray]) -> None:
    center_clamp = None if name == "no_clamp" else float(numbers["ctr_clamp"])
    coder = ClampedDeltaCoder(center_clamp, float(numbers["scale_clamp"]))
    deltas = torch.from_numpy(numbers["deltas"]).requires_grad_()
    anchors = torch.from_numpy(numbers["anchors"])
    boxes = coder.decode(deltas, anchors)
    np.testing.assert_allclose(boxes.detach().numpy(), numbers["boxes"], rtol=1e-6, atol=1e-4)
    (boxes * torch.from_numpy(numbers["loss_weights"])).sum().backward()
    want = numbers["grad_deltas"]
    np.testing.assert_allclose(deltas.grad.numpy(), want, rtol=1e-4, atol=1e-4)


@params("yolof_implicit_objectness")
def test_implicit_objectness(numbers: dict[str, np.ndarray]) -> None:
    cls_logits = torch.from_numpy(numbers["cls_logits"]).requires_grad_()
    objectness = torch.from_numpy(numbers["objectness"]).requires_grad_()
    got = with_objectness(cls_logits, objectness)
    np.testing.assert_allclose(got.detach().numpy(), numbers["normalised"], rtol=1e-5, atol=1e-5)
    (got * torch.from_numpy(numbers["loss_weights"])).sum().backward()
    for grad, name in ((cls_logits.grad, "grad_cls"), (objectness.grad, "grad_obj")):
        assert grad.isfinite().all()
        known = np.isfinite(numbers[name])
        assert known.mean() > 0.4
        np.testing.assert_allclose(grad.numpy()[known], numbers[name][known], rtol=1e-4, atol=1e-5)


@params("uniform_matcher")
def test_uniform_matching(numbers: dict[str, np.ndarray]) -> None:
    """The reference's raw lists; a pair is ignored by its anchor's IoU, an anchor by its box's."""
    anchors = torch.from_numpy(numbers["anchors"])
    topk = int(numbers["match_times"])
    assign = UniformAssigner(topk, min_iou=0.15, max_iou=0.7)
    for i, pred_boxes in enumerate(torch.from_numpy(numbers["pred_boxes"])):
        boxes = torch.from_numpy(numbers[f"img{i}/gt_boxes"]).reshape(-1, 4)
        match = assign(anchors, boxes, pred_boxes=pred_boxes)
        np.testing.assert_array_equal(match.gt_idx.numpy(), numbers[f"img{i}/gt_idx"])
        theirs = torch.from_numpy(numbers[f"img{i}/anchor_idx"]).long()
        same = match.anchor_idx == theirs
        assert same.reshape(topk, 2, len(boxes))[:, 0].all()  # by predicted box
        # Some anchors are equally far from a box. Which is taken first is up to the reference's
        # top-k routine; ours takes the earlier one.
        targets = box_convert(boxes[match.gt_idx], "xyxy", "cxcywh")
        costs = [
            (box_convert(anchors[idx], "xyxy", "cxcywh") - targets).abs().sum(1)
            for idx in (match.anchor_idx, theirs)
        ]
        torch.testing.assert_close(*costs, rtol=0, atol=1e-4)

        ignored = torch.from_numpy(numbers[f"img{i}/anchor_iou_of_match"] < 0.15)
        assert torch.equal(match.ignored_pairs[same], ignored[same])
        ignored = numbers[f"img{i}/pred_max_iou"] > 0.7
        np.testing.assert_array_equal(match.ignored_anchors.numpy(), ignored)


@params("nms")
def test_class_aware_nms(numbers: dict[str, np.ndarray]) -> None:
    boxes = torch.from_numpy(numbers["boxes"])
    scores = torch.from_numpy(numbers["scores"])
    labels = torch.from_numpy(numbers["labels"])
    compared = 0
    for threshold in (0.5, 0.6):
        for name, class_agnostic in (("nms", True), ("batched_nms", False)):
            key = f"{name}_thr{threshold}/keep"
            if key not in numbers:
                continue
            nms = HardNMS(threshold, class_agnostic=class_agnostic)
            keep, kept_scores = nms(boxes, scores, labels, max_detections=len(boxes))
            np.testing.assert_array_equal(keep.numpy(), numbers[key])
            assert torch.equal(kept_scores, scores[keep])
            compared += 1
    assert compared
