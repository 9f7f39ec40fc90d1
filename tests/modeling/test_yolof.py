"""YOLOF's parts and how its losses are put together."""

import math
from typing import Any

import pytest
import torch
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.utils.events import EventStorage
from hypothesis import given
from hypothesis import strategies as st
from operators import HostWaits
from tiny import empty_picture, picture, tiny_yolof
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.modeling.assigners import Match, PairMatch, UniformAssigner
from vfnet_yolof.modeling.backbones import build_resnet
from vfnet_yolof.modeling.boxes import SCALE_CLAMP, ClampedDeltaCoder
from vfnet_yolof.modeling.heads import AnchorHead, AnchorPredictions
from vfnet_yolof.modeling.heads.anchor_head import with_objectness
from vfnet_yolof.modeling.losses import FocalLoss, GIoUBoxLoss, SmoothL1BoxLoss, giou_loss
from vfnet_yolof.modeling.meta_arch import AnchorDetector
from vfnet_yolof.modeling.meta_arch.anchor_detector import flatten_anchors
from vfnet_yolof.modeling.necks import DilatedEncoder
from vfnet_yolof.modeling.postprocess import PostProcessor


class TestClampedDeltaCoder:
    anchor = torch.tensor([[10.0, 20.0, 50.0, 100.0]])  # centre (30, 60), 40 x 80

    def test_hand_computed(self) -> None:
        deltas = torch.tensor([[0.25, -0.1, math.log(2), math.log(0.5)]])
        box = ClampedDeltaCoder().decode(deltas, self.anchor)
        torch.testing.assert_close(box, torch.tensor([[0.0, 32, 80, 72]]))
        torch.testing.assert_close(ClampedDeltaCoder().encode(self.anchor, box), deltas)

    @pytest.mark.parametrize(("clamp", "want"), [(32.0, 32.0), (5.0, 5.0), (None, 80.0)])
    def test_a_centre_moves_only_so_far(self, clamp: float | None, want: float) -> None:
        """In pixels, along each axis by itself, whatever the anchor's size."""
        coder = ClampedDeltaCoder(clamp)
        for sign in (1, -1):
            box = coder.decode(torch.tensor([[2.0 * sign, sign / 80, 0, 0]]), self.anchor)
            center = (box[:, :2] + box[:, 2:]) / 2
            assert center.tolist() == [pytest.approx([30 + sign * want, 60 + sign])]

    def test_a_box_grows_only_so_far(self) -> None:
        box = ClampedDeltaCoder().decode(torch.tensor([[0.0, 0, 99, -99]]), self.anchor)
        assert (box[:, 2] - box[:, 0]).item() == pytest.approx(40 * 1000 / 16)
        assert (box[:, 3] - box[:, 1]).item() == 0
        assert math.exp(SCALE_CLAMP) == pytest.approx(62.5)

    def test_what_is_clamped_gets_no_gradient(self) -> None:
        deltas = torch.tensor([[2.0, 0.1, 99.0, 0.1]], requires_grad=True)
        ClampedDeltaCoder().decode(deltas, self.anchor).square().sum().backward()
        assert (deltas.grad != 0).tolist() == [[False, True, False, True]]

    @given(st.lists(st.integers(1, 600), min_size=8, max_size=8))
    def test_round_trip(self, numbers: list[int]) -> None:
        corners, sizes = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2, 2).unbind()
        anchor, box = torch.cat([corners, corners + sizes], dim=1)[:, None]
        coder = ClampedDeltaCoder(None, scale_clamp=10.0)
        torch.testing.assert_close(coder.decode(coder.encode(anchor, box), anchor), box)


class TestImplicitObjectness:
    @given(st.floats(-12, 12), st.floats(-12, 12))
    def test_multiplies_the_two_probabilities(self, cls: float, obj: float) -> None:
        got = with_objectness(torch.full((1, 1, 1, 1), cls), torch.full((1, 1, 1, 1), obj))
        want = torch.tensor(cls).sigmoid() * torch.tensor(obj).sigmoid()
        torch.testing.assert_close(got.sigmoid().squeeze(), want, rtol=1e-4, atol=1e-6)

    def test_each_anchor_has_its_own(self) -> None:
        objectness = torch.tensor([-18.0, 0.0, 18.0]).reshape(1, 3, 1, 1)
        got = with_objectness(torch.zeros(1, 3 * 2, 1, 1), objectness).sigmoid().flatten()
        torch.testing.assert_close(
            got, torch.tensor([0, 0, 0.25, 0.25, 0.5, 0.5]), atol=1e-6, rtol=0
        )

    def test_no_logit_is_too_large(self) -> None:
        extremes = torch.tensor([-1e4, -88, 0, 18.4, 18.5, 88, 1e4])
        cls = extremes.repeat(7).reshape(7, 1, 1, 7).clone().requires_grad_()
        obj = extremes.reshape(7, 1, 1, 1).expand(7, 1, 1, 7).clone().requires_grad_()
        got = with_objectness(cls, obj)
        assert got.isfinite().all()
        got.sum().backward()
        assert cls.grad.isfinite().all()
        assert obj.grad.isfinite().all()

    def test_half_precision_in_float32_out(self) -> None:
        cls, obj = torch.randn(1, 4, 2, 2).bfloat16(), torch.randn(1, 2, 2, 2).bfloat16()
        got = with_objectness(cls, obj)
        assert got.dtype == torch.float32
        assert torch.equal(got, with_objectness(cls.float(), obj.float()))


def small_encoder(**options: Any) -> DilatedEncoder:
    torch.manual_seed(0)
    bottom_up = build_resnet(18, stem_channels=4, res2_channels=4, out_features=["res4", "res5"])
    return DilatedEncoder(bottom_up, **{"channels": 16, "mid_channels": 4, **options})


class TestDilatedEncoder:
    @pytest.mark.parametrize(("feature", "stride"), [("res4", 16), ("res5", 32)])
    def test_says_what_it_gives(self, feature: str, stride: int) -> None:
        encoder = small_encoder(in_feature=feature)
        ((name, shape),) = encoder.output_shape().items()
        outputs = encoder(torch.randn(1, 3, 90, 70))
        assert list(outputs) == [name] == ["encoded"]
        assert outputs[name].shape == (1, 16, -(-90 // stride), -(-70 // stride))
        assert (shape.channels, shape.stride) == (16, stride)
        assert encoder.size_divisibility == 0

    def test_pads_where_it_is_told(self) -> None:
        assert small_encoder(size_divisibility=32).size_divisibility == 32
        with pytest.raises(ValueError, match="size_divisibility must not be negative"):
            small_encoder(size_divisibility=-1)

    @pytest.mark.parametrize("dilations", [[], [3], [2, 4, 6, 8], [1] * 10])
    def test_a_block_for_each_dilation(self, dilations: list[int]) -> None:
        encoder = small_encoder(dilations=dilations)
        assert [b.conv2.dilation for b in encoder.blocks] == [(d, d) for d in dilations]
        assert encoder(torch.randn(1, 3, 64, 64))["encoded"].shape == (1, 16, 2, 2)

    def test_a_dilated_block_sees_that_far(self) -> None:
        encoder = small_encoder(dilations=[3], norm="")
        x = torch.randn(1, 16, 9, 9, requires_grad=True)
        encoder.blocks(x)[0, :, 4, 4].sum().backward()
        seen = x.grad[0].abs().sum(0).nonzero().tolist()
        assert seen == [[i, j] for i in (1, 4, 7) for j in (1, 4, 7)]

    def test_shortcuts_keep_the_projected_feature(self) -> None:
        """Without them nothing of it passes blocks whose last convolution is zero."""
        x = torch.randn(2, 3, 64, 64)
        for shortcut in (True, False):
            encoder = small_encoder(shortcut=shortcut).eval()
            for block in encoder.blocks:
                nn.init.zeros_(block.conv3.weight)
            with torch.no_grad():
                projected = encoder.output(encoder.lateral(encoder.bottom_up(x)["res5"]))
                want = projected if shortcut else torch.zeros_like(projected)
                assert torch.equal(encoder(x)["encoded"], want)

    def test_where_activations_are(self) -> None:
        """Figure 5: none in the projector, after every convolution in the blocks."""
        encoder = small_encoder(activation="LeakyReLU")
        assert encoder.lateral.activation is None
        assert encoder.output.activation is None
        for block in encoder.blocks:
            for conv in (block.conv1, block.conv2, block.conv3):
                assert conv.activation.negative_slope == 0.1
                assert conv.bias is not None
                assert isinstance(conv.norm, nn.BatchNorm2d)

    def test_bad_options_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"in_feature must be one of \['res4', 'res5'\], got"):
            small_encoder(in_feature="res3")
        with pytest.raises(ValueError, match="activation must be .*, got 'GELU'"):
            small_encoder(activation="GELU")


class TestHead:
    def head(self, **options: Any) -> AnchorHead:
        torch.manual_seed(0)
        sizes = {"in_channels": 8, "conv_channels": 8, "num_classes": 4, "num_anchors": 3}
        return AnchorHead(**sizes, **options)

    def test_on_any_number_of_levels(self) -> None:
        features = [torch.randn(2, 8, n, n + 1) for n in (6, 3)]
        head = self.head().eval()
        got = head(features)
        assert [x.shape for x in got.logits] == [(2, 12, 6, 7), (2, 12, 3, 4)]
        assert [x.shape for x in got.deltas] == [(2, 12, 6, 7), (2, 12, 3, 4)]
        alone = head(features[1:])
        torch.testing.assert_close(got.logits[1], alone.logits[0])

    def test_depths_and_biases(self) -> None:
        head = self.head()
        assert (len(head.cls_tower), len(head.reg_tower)) == (2, 4)
        convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        assert all(m.bias is not None for m in convs)
        assert len(convs) == 2 + 4 + 3

    def test_without_objectness_and_norm_it_is_retinanets(self) -> None:
        head = self.head(num_cls_convs=4, norm="", implicit_objectness=False)
        assert not any("norm" in k or "objectness" in k for k in head.state_dict())
        scores = head([torch.zeros(1, 8, 2, 2)]).logits[0].sigmoid()
        torch.testing.assert_close(scores, torch.full_like(scores, 0.01))


def test_anchors_are_in_the_order_of_the_predictions() -> None:
    """Channels count anchors before classes; rows count locations before anchors."""
    rows, columns, anchors, classes = 2, 3, 2, 4
    maps = torch.arange(anchors * classes * rows * columns).reshape(1, -1, rows, columns)
    (flat,) = flatten_anchors([maps], classes)
    assert flat.shape == (1, rows * columns * anchors, classes)
    generator = DefaultAnchorGenerator(sizes=[[8, 16]], aspect_ratios=[1.0], strides=[10], offset=0)
    boxes = generator([maps])[0].tensor
    for row, box in enumerate(boxes):
        x, y = ((box[:2] + box[2:]) / 20).long().tolist()
        a = [8, 16].index(int(box[2] - box[0]))
        assert torch.equal(flat[0, row], maps[0, a * classes : (a + 1) * classes, y, x])


class FixedAssigner:
    """Gives each image the next of the given matches."""

    def __init__(self, matches: list[Match]) -> None:
        self.matches = iter(matches)

    def __call__(self, anchors: Tensor, gt_boxes: Tensor, **kwargs: Any) -> Match:
        return next(self.matches)


def match_of(pairs: list[tuple[int, int]], ignored_pairs: list[int], ignored: list[int]) -> Match:
    anchor_idx, gt_idx = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    number = torch.arange(len(pairs))
    anchors = torch.zeros(64, dtype=torch.bool)  # 4 x 4 cells, 4 anchors
    anchors[ignored] = True
    return PairMatch(anchor_idx, gt_idx, torch.isin(number, torch.tensor(ignored_pairs)), anchors)


class TestLosses:
    def test_pair_by_pair(self) -> None:
        """Pairs count twice in the box loss, anchors once in the divisor; the last pair labels."""
        batch = [picture(classes=[0, 2]), picture(classes=[1, 1], seed=3)]
        first = match_of([(5, 0), (9, 1), (5, 1), (7, 0), (5, 1)], [3], [7, 20, 9])
        second = match_of([(1, 0), (2, 1), (2, 0)], [2], [])
        model = tiny_yolof(assigner=FixedAssigner([first, second]), box_weight=3.0)
        model.eval()  # the same batch norms in both passes
        images = model.preprocess_image(batch)
        features = [model.backbone(images.tensor)["encoded"]]
        predictions = model.head(features)
        boxes = [x["instances"] for x in batch]
        targets = model.targets(images, features, predictions, boxes)
        got = model.losses(predictions, targets)

        # Anchor 9 is positive though it is among the ignored; 7's only pair and 2's last one
        # are ignored, so they are neither.
        labels = torch.full((2, 64), 3)
        labels[0, [5, 9, 7, 20]] = torch.tensor([2, 2, -1, -1])
        labels[1, [1, 2]] = torch.tensor([1, -1])
        assert torch.equal(targets.labels, labels.flatten())
        assert targets.num_foreground == 3

        anchors = model.anchor_generator(features)[0].tensor
        box_loss = 0.0
        for image, pairs in ((0, [(5, 0), (9, 1), (5, 1), (5, 1)]), (1, [(1, 0), (2, 1)])):
            for row, number in pairs:
                y, x = divmod(row // 4, 4)
                deltas = predictions.deltas[0][image, 4 * (row % 4) : 4 * (row % 4) + 4, y, x]
                box = model.box_coder.decode(deltas, anchors[row])
                box_loss += giou_loss(box, boxes[image].gt_boxes.tensor[number]).item()
        assert got["loss_box"].item() == pytest.approx(3 * box_loss / 3, rel=1e-5)

        logits = flatten_anchors(predictions.logits, 3)[0].flatten(0, 1)
        known = labels.flatten() >= 0
        one_hot = F.one_hot(labels.flatten()[known], 4)[:, :3].float()
        p = logits[known].sigmoid()
        focal = torch.where(
            one_hot == 1, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
        )
        assert got["loss_cls"].item() == pytest.approx(focal.sum().item() / 3, rel=1e-4)

    def test_ignored_anchors_learn_nothing(self) -> None:
        match = match_of([(5, 0)], [], [20])
        model = tiny_yolof(assigner=FixedAssigner([match, match]))
        batch = [picture(), picture(seed=2)]
        images = model.preprocess_image(batch)
        features = [model.backbone(images.tensor)["encoded"]]
        predictions = AnchorPredictions(
            *([x.detach().requires_grad_() for x in maps] for maps in model.head(features))
        )
        targets = model.targets(images, features, predictions, [x["instances"] for x in batch])
        model.losses(predictions, targets)["loss_cls"].backward()
        (grad,) = flatten_anchors([predictions.logits[0].grad], 3)
        silent = (grad == 0).all(-1).nonzero().tolist()
        assert silent == [[0, 20], [1, 20]]

    def test_focal_loss_of_labels_and_of_positives_agree(self) -> None:
        logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([0, 3, 2, 3, 3, 1])
        positives = labels < 3
        want = FocalLoss()(logits, positives.nonzero()[:, 0], labels[positives], None)
        torch.testing.assert_close(FocalLoss().on_labels(logits, labels), want)
        ignored = labels.where(positives, -1)
        got = FocalLoss().on_labels(logits, ignored)
        want = FocalLoss().on_labels(logits[positives], labels[positives])
        torch.testing.assert_close(got, want)

    def test_smooth_l1_is_of_the_deltas(self) -> None:
        anchors = torch.tensor([[0.0, 0, 20, 20], [10, 10, 30, 50]])
        boxes = torch.tensor([[1.0, 0, 21, 20], [10, 10, 30, 50]])
        deltas = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0.05]])
        got = SmoothL1BoxLoss(0.1)(ClampedDeltaCoder(None), deltas, anchors, boxes)
        # Differences 0.05 (quadratic: x^2 / 2 beta), and 1 (linear: x - beta / 2) and 0.05.
        torch.testing.assert_close(got, torch.tensor([0.0125, 0.95 + 0.0125]))
        perfect = ClampedDeltaCoder(None).encode(anchors, boxes)
        for loss in (SmoothL1BoxLoss(), GIoUBoxLoss()):
            got = loss(ClampedDeltaCoder(None), perfect, anchors, boxes)
            torch.testing.assert_close(got, torch.zeros(2), atol=1e-6, rtol=0)


def waits_of_a_step(model: nn.Module, batch: list[dict]) -> list[str]:
    """Everything that a training step computes after the images have been batched."""
    images = model.preprocess_image(batch)
    boxes = [x["instances"] for x in batch]
    with HostWaits() as waits:
        features = [model.backbone(images.tensor)["encoded"]]
        losses = model.forward_training(images, features, model.head(features), boxes)
        sum(losses.values()).backward()
    return waits.found


def test_a_step_never_waits_for_the_device() -> None:
    assert waits_of_a_step(tiny_yolof(), [picture(), empty_picture()]) == []


def test_positives_are_logged_now_and_then() -> None:
    model = tiny_yolof()
    with EventStorage() as storage:
        for _ in range(22):
            waits = waits_of_a_step(model, [picture(), empty_picture()])
            assert len(waits) == (1 if storage.iter % 20 == 0 else 0)
            storage.step()
        history = storage.history("num_pos").values()
    assert [iteration for _, iteration in history] == [0, 20]
    assert all(0 < value <= 8 for value, _ in history)


def test_every_parameter_learns() -> None:
    # With the batch's statistics a bias in front of them has no effect, so take the running ones.
    model = tiny_yolof()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    sum(model([picture(), empty_picture()]).values()).backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_numbers_of_anchors_must_agree() -> None:
    with pytest.raises(ValueError, match=r"head predicts 3 anchors .* generator has \[4\]"):
        tiny_yolof(head__num_anchors=3)


class PlainPyramid(Backbone):
    """Two levels without weights."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {f"p{i}": F.avg_pool2d(x, 2**i).repeat(1, 2, 1, 1) / 64 for i in (3, 4)}


def test_several_levels() -> None:
    """As RetinaNet has them: the same head, more features."""
    torch.manual_seed(0)
    model = AnchorDetector(
        backbone=PlainPyramid(),
        head=AnchorHead(in_channels=6, conv_channels=8, num_classes=3, num_anchors=2),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[16, 24], [32, 48]], aspect_ratios=[1.0], strides=[8, 16], offset=0.0
        ),
        box_coder=ClampedDeltaCoder(None),
        assigner=UniformAssigner(4),
        postprocessor=PostProcessor(),
        num_classes=3,
        pixel_mean=[128.0] * 3,
        pixel_std=[1.0] * 3,
        head_in_features=["p3", "p4"],
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model([picture()])
        sum(losses.values()).backward()
        optimizer.step()
    got = model.eval()([picture()])[0]["instances"]
    assert got.pred_classes[:2].sort().values.tolist() == [0, 1]
