"""Representations of box sides: what they decode, learn and know, and their range."""

import math
import warnings

import pytest
import torch
from detectron2.utils.events import EventStorage
from hypothesis import given
from hypothesis import strategies as st
from tiny import picture, tiny_atss
from torch import Tensor
from vfnet_yolof.modeling.boxes import (
    ClampedDeltaCoder,
    boxes_to_distances,
    distances_to_boxes,
)
from vfnet_yolof.modeling.losses import aligned_iou, centerness_target, distribution_focal_loss
from vfnet_yolof.modeling.meta_arch import (
    CenternessTarget,
    EqualQuality,
    IoUTarget,
    PredictedScore,
)
from vfnet_yolof.modeling.meta_arch.gfl import Positives, RangeMonitor
from vfnet_yolof.modeling.representations import (
    AnchorDeltas,
    DiracDelta,
    GaussianDistribution,
    GeneralDistribution,
    integral,
)

POINTS = [DiracDelta(), DiracDelta(8.0), AnchorDeltas()]
EVERY = [GeneralDistribution(), GeneralDistribution(8, 2.0), GaussianDistribution(), *POINTS]


def raw_numbers(representation, rows: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4 * representation.channels, generator=generator, dtype=dtype)


def one_hot(bins: list[int], channels: int = 17) -> Tensor:
    """Raw numbers that are sure of one bin for each side."""
    return 100 * torch.nn.functional.one_hot(torch.tensor(bins), channels).float().flatten()


@pytest.mark.parametrize("representation", EVERY)
class TestEveryRepresentation:
    def test_shapes(self, representation) -> None:
        for shape in ((), (7,), (2, 3), (0,)):
            raw = torch.randn(*shape, 4 * representation.channels)
            assert representation.decode(raw).shape == (*shape, 4)
        raw = raw_numbers(representation)
        statistics = representation.statistics(raw)
        for value in (statistics.mean, statistics.std, statistics.entropy):
            assert value.shape == (5, 4)
        torch.testing.assert_close(statistics.mean, representation.decode(raw))

    def test_sides_do_not_mix(self, representation) -> None:
        if isinstance(representation, AnchorDeltas):
            pytest.skip("a shift of the centre moves two sides")
        raw = raw_numbers(representation, 1)
        before = representation.decode(raw)[0]
        raw[:, 2 * representation.channels : 3 * representation.channels].mul_(3)
        after = representation.decode(raw)[0]
        assert (before != after).tolist() == [False, False, True, False]

    def test_loss_is_unreduced_and_has_gradients(self, representation) -> None:
        if representation.loss_name is None:
            assert representation.side_loss(raw_numbers(representation), torch.ones(5, 4)) is None
            return
        raw = raw_numbers(representation).requires_grad_()
        target = torch.linspace(0.2, 15.7, 20, dtype=torch.float64).reshape(5, 4)
        assert representation.side_loss(raw, target).shape == (5, 4)
        assert torch.autograd.gradcheck(lambda x: representation.side_loss(x, target).sum(), raw)
        empty = representation.side_loss(raw[:0], target[:0])
        assert empty.shape == (0, 4)


class TestGeneralDistribution:
    def test_channels_and_range(self) -> None:
        assert GeneralDistribution().channels == 17
        assert GeneralDistribution().max_distance == 16
        half = GeneralDistribution(reg_max=32, interval=0.5)
        assert (half.channels, half.max_distance) == (33, 16)

    def test_a_sure_bin_is_its_distance(self) -> None:
        raw = one_hot([0, 3, 9, 16])
        assert GeneralDistribution().decode(raw).tolist() == pytest.approx([0, 3, 9, 16])
        half = GeneralDistribution(16, 0.5).decode(raw)
        assert half.tolist() == pytest.approx([0, 1.5, 4.5, 8])

    def test_no_knowledge_is_the_middle(self) -> None:
        assert GeneralDistribution().decode(torch.zeros(68)).tolist() == pytest.approx([8] * 4)

    @given(st.lists(st.floats(-20, 20), min_size=5, max_size=5), st.floats(0.1, 4))
    def test_expectation_lies_in_the_range(self, logits: list[float], interval: float) -> None:
        got = integral(torch.tensor(logits, dtype=torch.float64), interval)
        assert -1e-9 <= got.item() <= 4 * interval + 1e-9

    @pytest.mark.parametrize("interval", [0.5, 1.0, 2.0, 4.0])
    def test_targets_are_counted_in_bins(self, interval: float) -> None:
        """At any interval the loss is smallest for the two bins around the target."""
        representation = GeneralDistribution(int(16 / interval), interval)
        target = torch.full((1, 4), 7.3)
        raw = raw_numbers(representation, 1, torch.float32)
        want = distribution_focal_loss(raw.unflatten(-1, (4, -1)), target / interval)
        torch.testing.assert_close(representation.side_loss(raw, target).sum(), want)
        bins = torch.arange(representation.channels)
        best = (1 - (bins - 7.3 / interval).abs()).clamp(min=1e-9).log().repeat(4)[None]
        assert representation.decode(best)[0].tolist() == pytest.approx([7.3] * 4, abs=1e-4)
        assert (
            representation.side_loss(best, target) < representation.side_loss(raw, target)
        ).all()

    def test_targets_are_clamped_as_in_the_reference(self) -> None:
        representation = GeneralDistribution()
        raw = raw_numbers(representation, 1).expand(2, -1)
        target = torch.tensor([[-3.0, 15.95, 16.0, 400.0], [0.0, 15.9, 15.9, 15.9]])
        got = representation.side_loss(raw, target.double())
        torch.testing.assert_close(got[0], got[1], rtol=1e-5, atol=1e-6)

    def test_statistics(self) -> None:
        """Two equally likely bins, a sure one, and no knowledge."""
        logits = torch.full((4, 17), -1e4)
        logits[0, 2], logits[0, 6] = 0, 0
        logits[1, 5] = 0
        logits[2:] = 0
        got = GeneralDistribution(16, 0.5).statistics(logits.flatten())
        assert got.probabilities.shape == (4, 17)
        torch.testing.assert_close(got.probabilities.sum(-1), torch.ones(4))
        assert got.probabilities[0, [2, 6]].tolist() == [0.5, 0.5]
        assert got.mean.tolist() == pytest.approx([2.0, 2.5, 4.0, 4.0], rel=1e-5)
        uniform = 0.5 * math.sqrt((17**2 - 1) / 12)
        assert got.std.tolist() == pytest.approx([1.0, 0.0, uniform, uniform], rel=1e-5)
        want = [math.log(2), 0.0, math.log(17), math.log(17)]
        assert got.entropy.tolist() == pytest.approx(want, rel=1e-5)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="reg_max must be at least 1, got 0"):
            GeneralDistribution(0)
        with pytest.raises(ValueError, match="interval must be positive, got 0"):
            GeneralDistribution(16, 0)


def test_a_dirac_delta_is_a_point() -> None:
    raw = torch.tensor([0.0, 1.0, -1.0, 2.0])
    got = DiracDelta().statistics(raw)
    torch.testing.assert_close(got.mean, raw.exp())
    assert got.probabilities is None
    assert got.std.tolist() == [0] * 4
    assert got.entropy.tolist() == [-math.inf] * 4


def test_a_dirac_delta_may_have_another_unit() -> None:
    raw = torch.tensor([0.0, 1.0, -1.0, 2.0])
    assert torch.equal(DiracDelta(8.0).decode(raw), 8 * DiracDelta().decode(raw))
    with pytest.raises(ValueError, match="unit must be positive, got 0"):
        DiracDelta(0)
    with pytest.raises(ValueError, match="unit must be a finite number, got inf"):
        DiracDelta(math.inf)


class TestAnchorDeltas:
    def test_are_those_of_an_anchor_around_the_location(self) -> None:
        """Four weighted numbers, on an anchor of eight strides of 16 pixels each."""
        raw = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        points = torch.rand(50, 2, dtype=torch.float64) * 500
        anchors = torch.cat([points - 64, points + 64], dim=1)
        weights = torch.tensor([0.1, 0.1, 0.2, 0.2], dtype=torch.float64)
        want = ClampedDeltaCoder(center_clamp=None).decode(raw * weights, anchors)
        got = distances_to_boxes(points, AnchorDeltas().decode(raw) * 16)
        torch.testing.assert_close(got, want)

    def test_without_deltas_it_is_the_anchor(self) -> None:
        assert AnchorDeltas().decode(torch.zeros(4)).tolist() == [4] * 4
        assert AnchorDeltas(anchor_side=6).decode(torch.zeros(4)).tolist() == [3] * 4

    def test_a_location_outside_of_its_box_has_negative_distances(self) -> None:
        left, top, right, bottom = AnchorDeltas().decode(torch.tensor([10.0, 0, 0, 0])).tolist()
        assert (left, top, right, bottom) == pytest.approx((-4, 4, 12, 4))

    def test_growth_is_limited(self) -> None:
        wide = AnchorDeltas().decode(torch.tensor([0.0, 0, 1e3, -1e3]))
        assert wide.tolist() == pytest.approx([250, 0.064, 250, 0.064])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": (0.1, 0.2)}, "weights must be four numbers"),
            ({"weights": (0.1, 0.1, 0.2, -0.2)}, r"weights\[3\] must not be negative, got -0.2"),
            ({"anchor_side": 0}, "anchor_side 0 and weights .* must be positive"),
        ],
    )
    def test_bad_arguments(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            AnchorDeltas(**options)

    def test_make_a_detector(self) -> None:
        """ATSS as published: its losses reach all parameters of the head."""
        model = tiny_atss(head__representation=AnchorDeltas())
        losses = model([picture()])
        assert set(losses) == {"loss_box", "loss_cls", "loss_quality"}
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.head.parameters())
        model.eval()([picture()])


class TestGaussian:
    def test_hand_computed(self) -> None:
        """Mean 1, variance e: quadratic within a stride, linear beyond it."""
        raw = torch.tensor([[0.0, 1.0] * 4])
        target = torch.tensor([[1.0, 1.5, 4.0, 0.0]])
        got = GaussianDistribution().side_loss(raw, target)[0].tolist()
        error = [0.0, 0.125, 2.5, 0.5]
        assert got == pytest.approx([math.exp(-1) * x + 0.5 for x in error])

    def test_best_variance_is_the_squared_error(self) -> None:
        """So the predicted spread tells how wrong the mean is."""
        target = torch.tensor([[1.4] * 4])
        log_variance = torch.linspace(-4, 1, 501)
        raw = torch.stack([torch.zeros(501), log_variance], dim=1).repeat(1, 4)
        loss = GaussianDistribution().side_loss(raw, target.expand(501, 4))[:, 0]
        assert log_variance[loss.argmin()].exp().item() == pytest.approx(0.16, rel=0.02)

    def test_statistics(self) -> None:
        raw = torch.tensor([0.0, 2.0] * 4)
        got = GaussianDistribution().statistics(raw)
        assert got.std.tolist() == pytest.approx([math.e] * 4)
        assert got.entropy.tolist() == pytest.approx([0.5 * math.log(2 * math.pi * math.e) + 1] * 4)

    def test_log_variance_is_bounded(self) -> None:
        raw = torch.tensor([[0.0, -1e4] * 4, [0.0, 1e4] * 4])
        got = GaussianDistribution(max_log_variance=3.0)
        assert got.side_loss(raw, torch.full((2, 4), 9.0)).isfinite().all()
        assert got.statistics(raw).std[:, 0].tolist() == pytest.approx(
            [math.exp(-1.5), math.exp(1.5)]
        )


def test_measures_of_quality() -> None:
    positives = Positives(
        points=torch.tensor([[2.0, 2.0], [1.0, 2.0]]),
        boxes=torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 2),
        pred_boxes=torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 4.0, 4.0]]),
        logits=torch.tensor([[-1.0, math.log(3)], [0.0, -2.0]]),
    )
    assert IoUTarget()(positives).tolist() == [0.5, 1.0]
    torch.testing.assert_close(
        IoUTarget()(positives), aligned_iou(positives.pred_boxes, positives.boxes)
    )
    want = centerness_target(boxes_to_distances(positives.points, positives.boxes))
    assert torch.equal(CenternessTarget()(positives), want)
    assert want[0] == 1 > want[1]
    assert PredictedScore()(positives).tolist() == pytest.approx([0.75, 0.5])
    assert EqualQuality()(positives).tolist() == [1, 1]


class TestRangeMonitor:
    def test_warns_once_above_one_percent(self) -> None:
        monitor = RangeMonitor(16.0, period=2)
        long = torch.full((25, 4), 3.0)
        long[0, 1:3] = 17.0  # 2 %
        with EventStorage() as storage, warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor(long)
            assert "dfl_out_of_range" not in storage.latest()
        with EventStorage() as storage:
            with pytest.warns(UserWarning, match="2.0% .* the 16 strides"):
                monitor(long)
            assert storage.latest()["dfl_out_of_range"][0] == pytest.approx(0.02)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor(long)
            monitor(long)

    def test_is_quiet_up_to_one_percent(self) -> None:
        monitor = RangeMonitor(16.0, period=1)
        ltrb = torch.full((25, 4), 16.0)
        ltrb[0, 0] = 16.1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor(ltrb)
            monitor(torch.zeros(0, 4))

    def test_counts_passes_with_gradients_only(self) -> None:
        monitor = RangeMonitor(16.0)
        monitor(torch.full((5, 4), 17.0))
        with torch.no_grad():
            monitor(torch.full((25, 4), 3.0))
        assert (monitor.beyond, monitor.total) == (20, 20)

    def test_counts_are_no_part_of_checkpoints(self) -> None:
        assert RangeMonitor(16.0).state_dict() == {}
