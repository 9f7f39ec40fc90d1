"""The detectors that the papers compare with: any classification loss on any of them."""

import copy
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from tiny import (
    empty_picture,
    picture,
    tiny_foveabox,
    tiny_published_atss,
    tiny_reppoints,
    tiny_retinanet,
    tiny_ssd,
    tiny_vfnet,
    tiny_yolof,
)
from torch import Tensor, nn
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    GuidedFocalLoss,
    MinedCrossEntropy,
    QualityFocalLoss,
    VarifocalLoss,
)
from vfnet_yolof.modeling.meta_arch.anchor_detector import AnchorTargets, log_odds

SIGMOIDS: dict[str, Any] = {"head__background": False, "head__prior_prob": 0.01}
DETECTORS = {
    "retinanet": tiny_retinanet,
    "atss": tiny_published_atss,
    "foveabox": tiny_foveabox,
    "reppoints": tiny_reppoints,
}
WITH_SSD = {**DETECTORS, "ssd": lambda **options: tiny_ssd(**SIGMOIDS, **options)}
LOSSES = {"fl": FocalLoss(), "qfl": QualityFocalLoss(), "vfl": VarifocalLoss()}
LARGE = (264, 272)  # SSD needs more than 256 pixels


def batch_of(name: str, boxes: str) -> list[dict]:
    size = {"size": LARGE} if name == "ssd" else {}
    empty = empty_picture(**size)
    return {
        "full": [picture(**size), picture(seed=2, **size)],
        "half-empty": [picture(**size), empty],
        "empty": [empty, empty],
    }[boxes]


@pytest.mark.parametrize("boxes", ["full", "half-empty", "empty"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", WITH_SSD)
def test_every_loss_trains_every_parameter(name: str, loss: str, boxes: str) -> None:
    model = WITH_SSD[name](cls_loss=LOSSES[loss])
    losses = model(batch_of(name, boxes))
    for key, value in losses.items():
        assert value.shape == () and value.isfinite() and value.requires_grad, key
        assert (value.item() > 0) == (boxes != "empty" or key == "loss_cls"), key
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    if boxes == "full":
        # What is of one level alone learns from the boxes of that level.
        shared = [k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0]
        shared = [k for k in shared if k.startswith("head") and "scales." not in k]
        assert not [k for k in shared if "levels." not in k]


@pytest.mark.parametrize("name", DETECTORS)
def test_the_loss_changes_the_classes_alone(name: str) -> None:
    found = [
        {k: v.item() for k, v in DETECTORS[name](cls_loss=loss)(batch_of(name, "full")).items()}
        for loss in LOSSES.values()
    ]
    for other in found[1:]:
        assert {k for k in other if other[k] != found[0][k]} == {"loss_cls"}


@pytest.mark.parametrize("make", [*DETECTORS.values(), tiny_yolof])
def test_guided_focal_loss_is_a_choice_too(make) -> None:
    losses = make(cls_loss=GuidedFocalLoss())([picture(), empty_picture()])
    assert all(x.isfinite() for x in losses.values())


@pytest.mark.parametrize("make", [*DETECTORS.values(), tiny_yolof])
def test_a_loss_of_ones_own_needs_no_base(make) -> None:
    """Whatever is called as the others are; rows that are ignored come as certain background."""

    def squares(logits, pos_idx, pos_classes, pos_quality, valid=None):
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_quality
        return (logits.sigmoid() - target).square().sum()

    losses = make(cls_loss=squares)([picture(), empty_picture()])
    assert losses["loss_cls"].isfinite() and losses["loss_cls"] > 0


def uneven() -> list[dict]:
    """The second image is smaller, so that a part of its maps belongs to no image."""
    return [picture(size=(96, 128)), picture([(3, 5, 50, 40)], size=(60, 64), seed=3)]


class Recorder:
    """An assigner that keeps its answers; ``valid`` as it was given."""

    def __init__(self, rule: Any) -> None:
        self.rule, self.seen = rule, []

    def __call__(self, *args: Any, **options: Any) -> Any:
        match = self.rule(*args, **options)
        self.seen.append((match, options.get("valid")))
        return match


def flat(maps: list[Tensor], channels: int) -> Tensor:
    """(N, R, channels), anchors fastest."""
    return torch.cat(
        [x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in maps], dim=1
    ).double()


def boxes_by_hand(name: str, model: nn.Module, out: Any, features: list, sizes: list) -> Tensor:
    """(N, R, 4) predicted boxes, written out anew."""
    if name == "retinanet":
        anchors = torch.cat([x.tensor for x in model.anchor_generator(features)]).double()
        side = anchors[:, 2:] - anchors[:, :2]
        deltas = flat(out.deltas, 4)
        center = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[..., :2] * side
        half = side * deltas[..., 2:].exp() / 2
        return torch.cat([center - half, center + half], dim=-1)
    grid = model.points.grid([x.shape[-2:] for x in features], torch.device("cpu"))
    points, stride = grid.points.double(), grid.strides.double()[:, None]
    if name == "atss":
        raw = flat(out.sides, 4)
        center = points + raw[..., :2] * 0.1 * 8 * stride
        half = (raw[..., 2:] * 0.2).exp() * 4 * stride
        return torch.cat([center - half, center + half], dim=-1)
    if name == "foveabox":
        ltrb = flat(out.sides, 4).exp() * 2 * stride
        boxes = torch.cat([points - ltrb[..., :2], points + ltrb[..., 2:]], dim=-1)
        return torch.stack(
            [
                torch.minimum(x.clamp(min=0), torch.tensor([w, h, w, h]) - 1.0)
                for x, (h, w) in zip(boxes, sizes, strict=True)
            ]
        )
    yx = flat(out.sides, 18).unflatten(-1, (9, 2)) * stride[..., None]
    center, spread = yx.mean(-2).flip(-1) + points, yx.std(-2).flip(-1)
    return torch.cat([center - spread, center + spread], dim=-1)


def iou_by_hand(a: Tensor, b: Tensor) -> float:
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    area = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / max(1e-6, area - width * height)


# Of each detector: rows in the padding learn background, and what the positives are divided by.
VARIFOCAL = {"retinanet": False, "reppoints": False, "atss": True, "foveabox": True}


@pytest.mark.parametrize("name", DETECTORS)
def test_varifocal_loss_by_its_formula(name: str) -> None:
    """-q (q log p + (1 - q) log(1 - p)) at positives, -alpha p^gamma log(1 - p) elsewhere."""
    padding = VARIFOCAL[name]
    loss = VarifocalLoss(padding_is_negative=padding, min_iou=1e-6 if padding else 0.0)
    model, batch = DETECTORS[name](cls_loss=loss), uneven()
    # Boxes that differ from place to place, and scores that are not all the same.
    torch.manual_seed(1)
    for key, parameter in model.head.named_parameters():
        if parameter.ndim == 4 and "tower" not in key:
            nn.init.normal_(parameter, std=0.02)
    model.assigner = recorder = Recorder(model.assigner)
    got = model(batch)["loss_cls"].item()

    images = model.preprocess_image(batch)
    features = list(model.backbone(images.tensor).values())
    with torch.no_grad():
        out = model.head(features)
        boxes = boxes_by_hand(name, model, out, features, images.image_sizes)
    p = flat(out.logits, 3).sigmoid()
    total, positives = 0.0, []
    for i, (match, valid) in enumerate(recorder.seen):
        counts = torch.ones(p.shape[1], dtype=torch.bool)
        if not padding:
            assert valid is not None
            counts = valid & ~(match.ignored_anchors & (match.assigned < 0))
            assert i == 0 or 0 < (~counts).sum() < len(counts)
        negative = -0.75 * p[i] ** 2 * (1 - p[i]).log()
        total += negative[counts].sum().item()
        instances = batch[i]["instances"]
        for row in match.anchor_idx.tolist():
            box = int(match.assigned[row])
            q = iou_by_hand(boxes[i, row], instances.gt_boxes.tensor[box].double())
            q = max(q, 1e-6) if padding else q
            label = int(instances.gt_classes[box])
            score = p[i, row, label]
            if q > 0:
                total += float(-q * (q * score.log() + (1 - q) * (1 - score).log()))
                total -= negative[row, label].item()
        positives.append(len(match.anchor_idx))
    assert min(positives) > 0
    divisor = sum(positives) + (len(batch) if name == "foveabox" else 0)
    assert got == pytest.approx(total / divisor, rel=1e-4)


def test_quality_of_an_anchor_with_several_boxes_is_the_last_ones() -> None:
    """As its label is."""
    model = tiny_yolof(cls_loss=QualityFocalLoss())
    anchors = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    targets = AnchorTargets(
        labels=torch.tensor([3, 1, 3, 0]),
        valid=None,
        rows=torch.tensor([1, 3, 1]),
        anchors=anchors,
        gt_boxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]]),
        counted=torch.ones(3, dtype=torch.bool),
        num_foreground=torch.tensor(2.0),
    )
    quality = model.quality(torch.zeros(3, 4), targets)
    torch.testing.assert_close(quality, torch.tensor([0.0, 0.5, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny_ssd(cls_loss=FocalLoss()), "FocalLoss has no place for a class for backgr"),
        (lambda: tiny_ssd(**SIGMOIDS), "MinedCrossEntropy needs a class for background"),
        (lambda: tiny_retinanet(cls_loss=MinedCrossEntropy()), "needs a class for background"),
        (lambda: tiny_reppoints(cls_loss=MinedCrossEntropy()), "one without a class for backgr"),
        (lambda: tiny_foveabox(cls_loss=MinedCrossEntropy()), "one without a class for background"),
        (
            lambda: tiny_published_atss(cls_loss=MinedCrossEntropy()),
            "one without a class for background",
        ),
        (lambda: tiny_vfnet(cls_loss=MinedCrossEntropy()), "one without a class for background"),
        (lambda: tiny_ssd(head__num_anchors=[4] * 7), r"the head predicts \(4, 4, .* has \[4, 6"),
    ],
)
def test_a_detector_that_cannot_use_a_loss_says_so(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ssd_trains_detects_and_refuses_small_images() -> None:
    model = tiny_ssd()
    losses = model(batch_of("ssd", "half-empty"))
    assert all(x.isfinite() and x > 0 for x in losses.values())
    nothing = model(batch_of("ssd", "empty"))
    assert {k: v.item() for k, v in nothing.items()} == {"loss_cls": 0.0, "loss_box": 0.0}
    sum(nothing.values()).backward()
    with pytest.raises(ValueError, match="more than 256 pixels on both sides, got 64 x 64"):
        model([picture()])
    model.eval()
    model.postprocessor.score_thresh = 0.0
    (found, _) = model(batch_of("ssd", "full"))
    assert len(found["instances"]) == 200


def test_log_odds_are_the_softmax() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [80.0, 0.0, 0.0], [0.0, 90.0, -90.0]])
    torch.testing.assert_close(log_odds(logits).sigmoid(), logits.softmax(-1))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_is_its_images(name: str) -> None:
    model = DETECTORS[name]().eval()
    model.postprocessor.score_thresh = 0.0
    a, b = picture(), picture(seed=4)
    together = model([a, b])
    for got, alone in zip(together, (model([a])[0], model([b])[0]), strict=True):
        assert len(got["instances"]) == len(alone["instances"]) > 0
        torch.testing.assert_close(got["instances"].scores, alone["instances"].scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_learns_two_boxes(name: str) -> None:
    model = DETECTORS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    batch = [picture(size=(128, 128), boxes=[(8, 8, 80, 72), (60, 40, 120, 124)])]
    first = None
    with EventStorage():
        for _ in range(80):
            losses = sum(model(copy.deepcopy(batch)).values())
            first = first or losses.item()
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
    assert losses.item() < 0.3 * first
