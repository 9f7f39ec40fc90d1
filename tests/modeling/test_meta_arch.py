"""The detectors as wholes: losses, detections, precision, and that they learn."""

import copy

import pytest
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from tiny import (
    BOXES,
    NUM_CLASSES,
    empty_picture,
    picture,
    tiny_atss,
    tiny_gfl,
    tiny_vfnet,
    tiny_yolof,
)
from torch import Tensor, nn
from vfnet_yolof.layers.star_conv import star_points
from vfnet_yolof.modeling.losses import FocalLoss, VarifocalLoss, aligned_iou

DETECTORS = pytest.mark.parametrize("make", [tiny_vfnet, tiny_atss, tiny_gfl, tiny_yolof])
LOSSES = {
    tiny_vfnet: {"loss_box_init", "loss_box", "loss_cls"},
    tiny_atss: {"loss_box", "loss_cls", "loss_quality"},
    tiny_gfl: {"loss_box", "loss_cls", "loss_dfl"},
    tiny_yolof: {"loss_box", "loss_cls"},
}


def train_step(model: nn.Module, batch: list[dict]) -> dict[str, Tensor]:
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    return losses


def assert_finite(model: nn.Module, losses: dict[str, Tensor]) -> None:
    for name, loss in losses.items():
        assert loss.isfinite(), name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@DETECTORS
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([picture(), picture(seed=2)], id="full"),
        pytest.param([picture(), empty_picture()], id="half-empty"),
        pytest.param([empty_picture(), empty_picture()], id="empty"),
    ],
)
def test_losses_are_finite_scalars_of_the_graph(make, batch: list[dict]) -> None:
    model = make()
    losses = train_step(model, batch)
    assert set(losses) == LOSSES[make]
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.requires_grad, name
        assert loss.dtype == torch.float32, name
        with_boxes = any(len(x["instances"]) for x in batch)
        assert (loss.item() > 0) == (with_boxes or name == "loss_cls"), name
    assert_finite(model, losses)


@DETECTORS
def test_one_class(make) -> None:
    model = make(num_classes=1)
    assert_finite(model, train_step(model, [picture(classes=[0, 0])]))
    model.eval()
    model.postprocessor.score_thresh = 0.0
    classes = model([picture()])[0]["instances"].pred_classes
    assert len(classes) > 0
    assert set(classes.tolist()) == {0}


@DETECTORS
def test_boxes_of_one_pixel_and_outside_of_the_image(make) -> None:
    model = make()
    boxes = [[10, 10, 11, 11], [16, 16, 17, 17], [16, 16, 17, 17], [200, 200, 230, 230]]
    assert_finite(model, train_step(model, [picture(boxes)]))


@DETECTORS
def test_two_thousand_boxes_in_one_image(make) -> None:
    corner = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 50
    boxes = torch.cat([corner, corner + 2 + corner.flip(1) / 6], dim=1)
    model = make()
    losses = train_step(model, [picture(boxes), empty_picture()])
    assert_finite(model, losses)
    assert losses["loss_box"] > 0


@torch.no_grad()
def confident(model: nn.Module) -> nn.Module:
    """In evaluation mode, with scores that differ enough to give detections."""
    model.eval()
    images = model.preprocess_image([picture()])
    features = model.backbone(images.tensor)
    last = model.head.cls_logits
    last.bias.fill_(0)
    logits = model.head([features[name] for name in model.head_in_features]).logits[0]
    last.weight /= logits.std()
    last.bias.fill_(-1)
    return model


def assert_same_detections(got: Instances, want: Instances) -> None:
    assert got.image_size == want.image_size
    assert len(got) == len(want) > 0
    torch.testing.assert_close(got.scores, want.scores, rtol=1e-4, atol=1e-5)
    assert got.pred_classes.tolist() == want.pred_classes.tolist()
    torch.testing.assert_close(got.pred_boxes.tensor, want.pred_boxes.tensor, rtol=1e-4, atol=1e-2)


@DETECTORS
@torch.no_grad()
def test_a_batch_of_two_is_two_batches_of_one(make) -> None:
    model = confident(make())
    a, b = picture(seed=5), picture(seed=6)
    together = model([a, b])
    for alone, output in zip((a, b), together, strict=True):
        assert set(output) == {"instances"}
        assert_same_detections(output["instances"], model([alone])[0]["instances"])


@DETECTORS
@torch.no_grad()
def test_images_of_different_sizes_keep_their_own_size(make) -> None:
    """Padding changes what convolutions see at the border, so scores are not compared."""
    model = confident(make())
    wide, tall = picture(size=(48, 96)), picture(size=(80, 40))
    for item, output in zip((wide, tall), model([wide, tall]), strict=True):
        height, width = item["image"].shape[1:]
        boxes = output["instances"].pred_boxes.tensor
        assert output["instances"].image_size == (height, width)
        assert len(boxes) > 0
        assert (boxes[:, 0::2] <= width).all()
        assert (boxes[:, 1::2] <= height).all()


@DETECTORS
@torch.no_grad()
def test_detections_are_in_pixels_of_the_original_image(make) -> None:
    model = confident(make())
    item = picture()
    plain = model([item])[0]["instances"]
    scaled = model([{**item, "height": 128, "width": 192}])[0]["instances"]
    assert scaled.image_size == (128, 192)
    want = plain.pred_boxes.tensor * torch.tensor([3.0, 2, 3, 2])
    torch.testing.assert_close(scaled.pred_boxes.tensor, want)
    assert plain.scores.tolist() == sorted(plain.scores.tolist(), reverse=True)


def test_padding_of_the_batch_is_not_assigned() -> None:
    """What lies beyond an image's own padded size is background, whatever box reaches there."""
    model = tiny_vfnet()
    small = picture([[0, 0, 120, 120]], size=(64, 64))
    images = model.preprocess_image([small, picture(size=(128, 128))])
    sizes = [(128 // s, 128 // s) for s in model.points.strides]
    grid = model.points.grid(sizes, torch.device("cpu"))
    ground_truth = [small["instances"], empty_picture((128, 128))["instances"]]
    matches = model.match(grid, ground_truth, model.valid_locations(images, sizes))
    assigned = torch.stack([match.box_of_each() for match in matches])
    outside = (grid.points >= 64).any(1)
    assert (assigned[0] >= 0).any()
    assert (assigned[0][outside] == -1).all()
    assert (assigned[1] == -1).all()


def test_targets_of_a_batch() -> None:
    """Rows count through the images, boxes and classes belong to their own image."""
    model = tiny_vfnet()
    batch = [picture([[4, 4, 40, 36]], [2]), picture([[0, 0, 64, 64], [30, 20, 60, 62]], [0, 1])]
    images = model.preprocess_image(batch)
    sizes = [(-(-64 // s), -(-64 // s)) for s in model.points.strides]
    targets = model.assign(images, sizes, [x["instances"] for x in batch])
    num_locations = sum(h * w for h, w in sizes)
    image = targets.pos_idx // num_locations
    assert image.unique().tolist() == [0, 1]
    assert len(targets.pos_idx.unique()) == len(targets.pos_idx) == targets.num_pos.item()
    points = torch.cat(model.points.points(sizes, torch.device("cpu")))
    assert torch.equal(targets.points, points[targets.pos_idx % num_locations])
    assert set(targets.classes[image == 0].tolist()) == {2}
    assert set(targets.classes[image == 1].tolist()) == {0, 1}
    want = {2: [4.0, 4, 40, 36], 0: [0.0, 0, 64, 64], 1: [30.0, 20, 60, 62]}
    for box, k in zip(targets.boxes.tolist(), targets.classes.tolist(), strict=True):
        assert box == want[k]


def test_weights_of_the_losses() -> None:
    batch = [picture()]
    plain = tiny_vfnet()(batch)
    heavy = tiny_vfnet(box_init_weight=3.0, box_weight=8.0)(batch)
    assert heavy["loss_box_init"].item() == pytest.approx(2 * plain["loss_box_init"].item())
    assert heavy["loss_box"].item() == pytest.approx(4 * plain["loss_box"].item())
    assert heavy["loss_cls"].item() == pytest.approx(plain["loss_cls"].item())
    plain = tiny_atss()(batch)
    heavy = tiny_atss(quality_weight=5.0, box_weight=6.0)(batch)
    assert heavy["loss_quality"].item() == pytest.approx(5 * plain["loss_quality"].item())
    assert heavy["loss_box"].item() == pytest.approx(3 * plain["loss_box"].item())


def test_classification_loss_is_exchangeable() -> None:
    model, batch = tiny_vfnet(), [picture()]
    by_name = {}
    for name, loss in (("vfl", VarifocalLoss()), ("focal", FocalLoss())):
        model.cls_loss = loss
        by_name[name] = model(batch)
    assert by_name["vfl"]["loss_cls"].item() != by_name["focal"]["loss_cls"].item()
    assert torch.equal(by_name["vfl"]["loss_box"], by_name["focal"]["loss_box"])


def test_atss_needs_the_centerness_branch() -> None:
    with pytest.raises(ValueError, match="needs both head.quality=True and model.quality"):
        tiny_atss(head__quality=False)


def test_positives_are_logged_where_there_is_a_log() -> None:
    model = tiny_vfnet()
    with EventStorage() as storage:
        model([picture(), empty_picture()])
        half, _ = storage.latest()["num_pos"]
        model([picture(), picture()])
        full, _ = storage.latest()["num_pos"]
    assert full == 2 * half > 0


@DETECTORS
def test_bfloat16_trains_with_losses_in_float32(make) -> None:
    # Not smaller: of maps with a single cell oneDNN reads what it should not in bfloat16.
    size = (160, 160)
    model, batch = make(), [picture(size=size), empty_picture(size)]
    reference = {k: v.item() for k, v in make()(batch).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
    sum(losses.values()).backward()
    assert {x.dtype for x in losses.values()} == {torch.float32}
    assert_finite(model, losses)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(reference[name], rel=0.05), name


@torch.no_grad()
def test_detections_carry_initial_boxes_and_star_points() -> None:
    model = confident(tiny_vfnet())
    item = {**picture(), "height": 128, "width": 192}
    got = model.detect([item, item], fields=["star"])[1]["instances"]
    assert len(got) > 0
    assert got.star_points.shape == (len(got), 9, 2)
    center = got.star_points[:, 4]
    initial = got.init_boxes.tensor
    # In the pixels of the output: locations are multiples of 8 in the input, scaled by 3 and 2.
    steps = center / torch.tensor([3.0, 2.0]) / 8
    torch.testing.assert_close(steps, steps.round())
    ltrb = torch.cat([center - initial[:, :2], initial[:, 2:] - center], dim=1)
    torch.testing.assert_close(got.star_points, star_points(center, ltrb))
    # The first and the last point are the corners of the initial box.
    torch.testing.assert_close(got.star_points[:, 0], initial[:, :2])
    torch.testing.assert_close(got.star_points[:, 8], initial[:, 2:])
    # Refinement is small at first, so the final box is about the initial one, clipped.
    clipped = got.init_boxes.clone()
    clipped.clip((128, 192))
    assert aligned_iou(clipped.tensor, got.pred_boxes.tensor).min() > 0.5


@torch.no_grad()
def test_stars_cost_nothing_where_they_are_not_asked_for() -> None:
    model = confident(tiny_vfnet())
    (output,) = model([picture()])
    assert set(output["instances"].get_fields()) == {"pred_boxes", "scores", "pred_classes"}


@torch.no_grad()
def test_without_refinement_stars_are_those_of_the_only_box() -> None:
    model = confident(tiny_vfnet(head__refine=False))
    got = model.detect([picture()], fields=["star"])[0]["instances"]
    clipped = got.init_boxes.clone()
    clipped.clip((64, 64))
    torch.testing.assert_close(clipped.tensor, got.pred_boxes.tensor)


def test_a_model_can_be_copied() -> None:
    """As averaging weights does."""
    model = tiny_vfnet()
    twin = copy.deepcopy(model)
    for a, b in zip(model([picture()]).values(), twin([picture()]).values(), strict=True):
        assert torch.equal(a, b)


@DETECTORS
def test_overfits_one_image(make) -> None:
    model, batch = make(), [picture()]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        losses = train_step(model, batch)
        optimizer.step()
        history.append(sum(losses.values()).item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5]), history
    model.eval()
    with torch.no_grad():
        got = model(batch)[0]["instances"]
    best = got[:2]
    order = best.pred_classes.argsort()
    assert best.pred_classes[order].tolist() == [0, 1] == list(range(NUM_CLASSES))[:2]
    assert aligned_iou(best.pred_boxes.tensor[order], torch.tensor(BOXES)).min() > 0.4
