"""GFL as a whole: how its losses are weighted and divided, its variants and what it keeps."""

import pytest
import torch
from tiny import empty_picture, picture, tiny_atss, tiny_gfl
from torch import Tensor, nn
from vfnet_yolof.engine.evaluation import ValidationLoss
from vfnet_yolof.engine.step import TrainStep
from vfnet_yolof.modeling.boxes import boxes_to_distances, distances_to_boxes
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    aligned_iou,
    distribution_focal_loss,
    giou_loss,
    quality_focal_loss,
)
from vfnet_yolof.modeling.meta_arch import CenternessTarget, EqualQuality, IoUTarget
from vfnet_yolof.modeling.meta_arch.base import feature_sizes, flatten_rows
from vfnet_yolof.modeling.meta_arch.outputs import Targets
from vfnet_yolof.modeling.representations import DiracDelta, GaussianDistribution

SEPARATE = {"head__quality": True, "cls_loss": FocalLoss(), "dfl_weight": 0}


def run(model: nn.Module, batch: list[dict]) -> tuple[tuple, Targets]:
    """Predictions and targets of a batch, as in training."""
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    features = [features[name] for name in model.head_in_features]
    targets = model.assign(images, feature_sizes(features), [x["instances"] for x in batch])
    return model.head(features), targets


def losses(model: nn.Module, batch: list[dict]) -> dict[str, float]:
    return {k: v.item() for k, v in model(batch).items()}


def test_losses_follow_equation_11() -> None:
    """Everything in units of the stride, weighted with the best score of each positive."""
    model, batch = tiny_gfl(head__prior_prob=0.3), [picture(), picture(seed=3)]
    predictions, targets = run(model, batch)
    logits, raw = flatten_rows(predictions.logits), flatten_rows(predictions.sides)
    raw = raw[targets.pos_idx].reshape(-1, 4, 17)
    stride = targets.strides[:, None]
    ltrb = raw.softmax(-1) @ torch.arange(17.0)
    pred_boxes = distances_to_boxes(targets.points, ltrb * stride)

    weight = logits[targets.pos_idx].sigmoid().amax(1)
    assert weight.sum() > 1
    box = 2 * (giou_loss(pred_boxes, targets.boxes) * weight).sum() / weight.sum()
    bins = (boxes_to_distances(targets.points, targets.boxes) / stride).clamp(0, 15.9)
    dfl = distribution_focal_loss(raw, bins, reduction="none").sum(1)
    dfl = 0.25 * (dfl * weight).sum() / weight.sum() / 4
    quality = torch.zeros_like(logits)
    iou = aligned_iou(pred_boxes, targets.boxes)
    quality[targets.pos_idx, targets.classes] = iou
    cls = quality_focal_loss(logits, quality) / len(targets.pos_idx)

    got = losses(model, batch)
    want = {"loss_box": box, "loss_dfl": dfl, "loss_cls": cls}
    assert got == {k: pytest.approx(v.item(), rel=1e-5) for k, v in want.items()}


def test_weights_of_the_losses() -> None:
    batch = [picture()]
    plain = losses(tiny_gfl(), batch)
    heavy = losses(tiny_gfl(box_weight=6.0, dfl_weight=1.0), batch)
    assert heavy["loss_box"] == pytest.approx(3 * plain["loss_box"])
    assert heavy["loss_dfl"] == pytest.approx(4 * plain["loss_dfl"])
    assert heavy["loss_cls"] == plain["loss_cls"]
    for off in (0, None):
        got = losses(tiny_gfl(dfl_weight=off), batch)
        assert got == {k: v for k, v in plain.items() if k != "loss_dfl"}


def test_weights_pass_no_gradient_to_the_scores() -> None:
    model = tiny_gfl(head__prior_prob=0.3)
    got = model([picture()])
    (got["loss_box"] + got["loss_dfl"]).backward()
    assert model.head.cls_logits.weight.grad is None
    assert model.head.reg.weight.grad.any()


def test_quality_target_passes_no_gradient_to_the_boxes() -> None:
    model = tiny_gfl()
    model([picture()])["loss_cls"].backward()
    assert model.head.reg.weight.grad is None


@torch.no_grad()
def test_an_image_without_boxes_counts_as_one_positive() -> None:
    model = tiny_gfl()
    (_, some), (_, half), (_, none) = (
        run(model, batch)
        for batch in (
            [picture()],
            [picture(), empty_picture()],
            [empty_picture(), empty_picture()],
        )
    )
    assert some.num_pos == len(some.pos_idx) > 1
    assert half.num_pos == some.num_pos + 1
    assert none.num_pos == 2
    with_one = losses(model, [empty_picture()])["loss_cls"]
    assert losses(model, [empty_picture()] * 2)["loss_cls"] == pytest.approx(with_one)


@torch.no_grad()
def test_what_lies_beyond_an_image_is_no_example() -> None:
    """Nothing that is predicted in the padding of the batch changes a loss."""
    model, small, large = tiny_gfl(), picture(), picture(size=(128, 128))
    predictions, targets = run(model, [small, large])
    assert targets.valid is not None
    before = model.losses(predictions, targets)
    points = torch.cat(model.points.points(feature_sizes(predictions.logits), model.device))
    assert torch.equal(~targets.valid[: len(points)], (points >= 64).any(1))
    assert targets.valid[len(points) :].all()

    def add(outside: int) -> Tensor:
        logits = [x.clone() for x in predictions.logits]
        logits[0][outside, :, 8:, :] += 3
        return model.losses(predictions._replace(logits=logits), targets)["loss_cls"]

    assert add(outside=0) == before["loss_cls"]
    assert add(outside=1) > before["loss_cls"]
    # Images of one size have no such locations.
    assert run(model, [small, small])[1].valid is None


def test_padding_learns_nothing() -> None:
    model, batch = tiny_gfl(), [empty_picture(), empty_picture((128, 128))]
    predictions, targets = run(model, batch)
    logits = [x.detach().requires_grad_() for x in predictions.logits]
    model.losses(predictions._replace(logits=logits), targets)["loss_cls"].backward()
    grad = flatten_rows([x.grad for x in logits])
    assert (grad[~targets.valid] == 0).all()
    assert (grad[targets.valid] != 0).all()


def test_with_a_dirac_delta_and_centerness_it_is_atss() -> None:
    """Table 1a's and 2a's common row; the sum of centerness is above 1."""
    atss, batch = tiny_atss(), [picture(), picture(seed=2)]
    gfl = tiny_gfl(
        head__representation=DiracDelta(),
        quality=CenternessTarget(),
        box_quality=CenternessTarget(),
        **SEPARATE,
    )
    # But for the ReLU before P7.
    gfl.backbone.top_block = atss.backbone.top_block
    gfl.load_state_dict(atss.state_dict())
    assert losses(gfl, batch) == losses(atss, batch)


def test_variants_of_table_1a() -> None:
    batch = [picture()]
    none = losses(tiny_gfl(**{**SEPARATE, "head__quality": False}), batch)
    by_branch = {
        measure: losses(tiny_gfl(quality=measure(), **SEPARATE), batch)
        for measure in (CenternessTarget, IoUTarget)
    }
    assert set(none) == {"loss_box", "loss_cls"}
    for got in by_branch.values():
        assert set(got) == {"loss_box", "loss_cls", "loss_quality"}
        assert got["loss_quality"] > 0
    first, second = by_branch.values()
    assert first["loss_quality"] != second["loss_quality"]
    heavy = losses(tiny_gfl(quality=IoUTarget(), quality_weight=3.0, **SEPARATE), batch)
    assert heavy["loss_quality"] == pytest.approx(3 * second["loss_quality"])


def test_boxes_can_be_weighted_alike() -> None:
    model = tiny_gfl(box_quality=EqualQuality(), dfl_weight=0)
    predictions, targets = run(model, [picture()])
    raw = flatten_rows(predictions.sides)[targets.pos_idx]
    ltrb = model.representation.decode(raw) * targets.strides[:, None]
    each = giou_loss(distances_to_boxes(targets.points, ltrb), targets.boxes)
    assert losses(model, [picture()])["loss_box"] == pytest.approx(2 * each.mean().item(), rel=1e-5)


def test_a_gaussian_has_its_own_loss() -> None:
    model = tiny_gfl(head__representation=GaussianDistribution())
    assert set(losses(model, [picture()])) == {"loss_box", "loss_cls", "loss_kl"}


@torch.no_grad()
def confident(model: nn.Module) -> nn.Module:
    """In evaluation mode, with detections."""
    model.eval()
    model.postprocessor.score_thresh = 0.0
    return model


@torch.no_grad()
def test_predicted_quality_multiplies_the_scores() -> None:
    model = confident(tiny_gfl(quality=IoUTarget(), **SEPARATE))
    model.head.quality.weight.zero_()
    scores = []
    for bias in (0.0, 30.0):
        model.head.quality.bias.fill_(bias)
        scores.append(model([picture()])[0]["instances"].scores)
    torch.testing.assert_close(scores[0], 0.5 * scores[1])


@torch.no_grad()
def test_only_candidates_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = confident(tiny_gfl())
    model.postprocessor.topk_candidates = 7
    rows, decode = [], model.representation.decode

    def counting(raw: Tensor) -> Tensor:
        rows.append(len(raw))
        return decode(raw)

    monkeypatch.setattr(model.representation, "decode", counting)
    assert len(model([picture()])[0]["instances"]) > 0
    assert len(rows) == 5
    assert max(rows) == 7


@torch.no_grad()
def test_detections_carry_their_distributions() -> None:
    torch.manual_seed(0)
    model = confident(tiny_gfl())
    model.head.reg.weight.normal_(std=0.2)
    model.postprocessor.score_thresh = 0.005
    item = {**picture(), "height": 128, "width": 192}
    got = model.detect([item, item], fields=["distributions"])[1]["instances"]
    count = len(got)
    assert count > 3
    assert got.side_probabilities.shape == (count, 4, 17)
    torch.testing.assert_close(got.side_probabilities.sum(-1), torch.ones(count, 4))
    # The box is the location and the means, clipped; all in the pixels of the output.
    boxes = distances_to_boxes(got.side_points, got.side_mean)
    limit = torch.tensor([192.0, 128, 192, 128])
    torch.testing.assert_close(boxes.clamp(min=0).minimum(limit), got.pred_boxes.tensor)
    # Bins lie a stride apart, which the output's scale of 3 and 2 stretches.
    strides = got.side_intervals / torch.tensor([3.0, 2.0, 3.0, 2.0])
    assert set(strides.flatten().tolist()) <= {8.0, 16.0, 32.0, 64.0, 128.0}
    assert (strides == strides[:, :1]).all()
    bins = torch.arange(17.0) * got.side_intervals[..., None]
    mean = (got.side_probabilities * bins).sum(-1)
    torch.testing.assert_close(got.side_mean, mean)
    variance = (got.side_probabilities * (bins - mean[..., None]).square()).sum(-1)
    torch.testing.assert_close(got.side_std, variance.sqrt(), rtol=1e-3, atol=1e-3)
    entropy = torch.distributions.Categorical(got.side_probabilities).entropy()
    torch.testing.assert_close(got.side_entropy, entropy, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_gaussian_keeps_mean_and_spread_without_bins() -> None:
    model = confident(tiny_gfl(head__representation=GaussianDistribution()))
    got = model.detect([picture()], fields=["distributions"])[0]["instances"]
    assert got.has("side_std")
    assert not got.has("side_probabilities")


def test_a_dirac_delta_has_none() -> None:
    model = tiny_gfl(head__representation=DiracDelta(), dfl_weight=0).eval()
    with pytest.raises(TypeError, match="GFL has no field 'distributions' to add; it has none"):
        model.detect([picture()], fields=["distributions"])


@torch.no_grad()
def test_distributions_cost_nothing_where_they_are_not_asked_for() -> None:
    got = confident(tiny_gfl())([picture()])[0]["instances"]
    assert set(got.get_fields()) == {"pred_boxes", "scores", "pred_classes"}


def test_targets_out_of_range_are_reported() -> None:
    """A box far larger than 16 strides of any level that learns it."""
    model = tiny_gfl()
    model.range_monitor.period = 1
    with pytest.warns(UserWarning, match="of the box sides seen so far are longer than the 16"):
        model([picture([[-3000, -3000, 3000, 3000]])])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_training_picture_is_counted_once(accumulate: int) -> None:
    """Neither the first of accumulation's two passes nor a validation loss trains."""
    model, batch = tiny_gfl(), [picture(), picture(seed=2)]
    sides = 4 * len(run(model, batch)[1].pos_idx)
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.0), accumulate=accumulate)
    step(batch, 0)
    assert model.range_monitor.total == sides > 0
    ValidationLoss(lambda: model, [batch]).compute()
    assert model.range_monitor.total == sides
    step(batch, 1)
    assert model.range_monitor.total == 2 * sides


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head__quality": True}, "got a head with the branch and quality=None"),
        ({"quality": IoUTarget()}, "got a head without the branch"),
        ({"head__representation": DiracDelta()}, "DiracDelta has no distribution"),
    ],
)
def test_contradictions_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_gfl(**options)
