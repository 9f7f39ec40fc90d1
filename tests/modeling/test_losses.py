"""Losses on numbers worked out by hand, their gradients, and what must hold for any input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_gfl, tiny_vfnet, tiny_yolof
from torch import Tensor
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    GuidedFocalLoss,
    QualityFocalLoss,
    SmoothL1BoxLoss,
    VarifocalLoss,
    aligned_iou,
    centerness_target,
    giou_loss,
    synced_mean,
    varifocal_loss,
)
from vfnet_yolof.modeling.representations import GaussianDistribution, GeneralDistribution

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)

# A logit of ln 3 is a probability of 3/4.
POSITIVE = -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))  # its cross entropy against 1/2


def vfl(logit: float, target: float, **options: float | bool) -> float:
    loss = varifocal_loss(
        torch.tensor([[logit]], dtype=torch.float64),
        torch.tensor([[target]], dtype=torch.float64),
        **options,
    )
    return loss.item()


class TestVarifocalLoss:
    def test_positives_are_weighted_with_their_target(self) -> None:
        assert vfl(LN3, 0.5) == pytest.approx(0.5 * POSITIVE)
        assert vfl(0.0, 0.8) == pytest.approx(0.8 * LN2)

    def test_without_iou_weighting_every_positive_counts_one(self) -> None:
        assert vfl(LN3, 0.5, iou_weighted=False) == pytest.approx(POSITIVE)
        # Negatives are the same as ever.
        assert vfl(LN3, 0.0, iou_weighted=False) == pytest.approx(0.75 * 0.75**2 * LN4)

    @pytest.mark.parametrize(
        ("alpha", "gamma"), [(0.75, 2.0), (0.5, 1.0), (0.75, 1.5), (1.25, 2.5), (1.0, 3.0)]
    )
    def test_negatives_are_weighted_with_alpha_and_gamma(self, alpha: float, gamma: float) -> None:
        got = vfl(LN3, 0.0, alpha=alpha, gamma=gamma)
        assert got == pytest.approx(alpha * 0.75**gamma * LN4)

    def test_alpha_and_gamma_leave_positives_alone(self) -> None:
        assert vfl(LN3, 0.5, alpha=9.0, gamma=7.0) == pytest.approx(0.5 * POSITIVE)

    def test_reductions(self) -> None:
        logits, target = torch.randn(5, 3), torch.rand(5, 3)
        each = varifocal_loss(logits, target, reduction="none")
        assert each.shape == (5, 3)
        assert varifocal_loss(logits, target).item() == pytest.approx(each.sum().item())
        with pytest.raises(ValueError, match="'sum' or 'none', got 'mean'"):
            varifocal_loss(logits, target, reduction="mean")

    def test_gradient_flows_through_the_weight_of_negatives(self) -> None:
        logit = torch.tensor([[LN3]], dtype=torch.float64, requires_grad=True)
        varifocal_loss(logit, torch.zeros(1, 1, dtype=torch.float64)).backward()
        p, alpha, gamma = 0.75, 0.75, 2.0
        constant_weight = alpha * p**gamma * p
        of_the_weight = alpha * gamma * p**gamma * (1 - p) * LN4
        assert logit.grad.item() == pytest.approx(constant_weight + of_the_weight)

    @pytest.mark.parametrize("gamma", [1.5, 2.0, 3.0])
    @pytest.mark.parametrize("iou_weighted", [True, False])
    def test_gradcheck(self, gamma: float, iou_weighted: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        target = torch.rand(6, 4, generator=generator, dtype=torch.float64)
        target[::2] = 0

        def loss(x: Tensor) -> Tensor:
            return varifocal_loss(x, target, gamma=gamma, iou_weighted=iou_weighted)

        assert torch.autograd.gradcheck(loss, logits)

    @given(logit=st.floats(-30, 30), target=st.floats(0, 1), gamma=st.floats(1, 4))
    def test_is_never_negative(self, logit: float, target: float, gamma: float) -> None:
        assert vfl(logit, target, gamma=gamma) >= 0

    @given(target=st.floats(0.01, 0.99))
    def test_positives_rest_where_the_score_is_their_iou(self, target: float) -> None:
        logit = torch.logit(torch.tensor([[target]], dtype=torch.float64)).requires_grad_()
        varifocal_loss(logit, torch.tensor([[target]], dtype=torch.float64)).backward()
        assert logit.grad.abs().item() < 1e-12

    @given(target=st.floats(0.05, 0.95), off=st.floats(0.01, 3))
    def test_positives_lose_on_either_side_of_their_iou(self, target: float, off: float) -> None:
        best = math.log(target / (1 - target))
        assert vfl(best, target) < vfl(best + off, target)
        assert vfl(best, target) < vfl(best - off, target)

    def test_sparse_positives_are_the_dense_loss(self) -> None:
        logits = torch.randn(7, 4)
        pos_idx, classes = torch.tensor([5, 0]), torch.tensor([3, 1])
        iou = torch.tensor([0.9, 0.2])
        target = torch.zeros(7, 4)
        target[5, 3], target[0, 1] = 0.9, 0.2
        for options in ({}, dict(alpha=0.5), dict(gamma=1.0), dict(iou_weighted=False)):
            got = VarifocalLoss(**options)(logits, pos_idx, classes, iou)
            assert torch.equal(got, varifocal_loss(logits, target, **options)), options


class TestFocalLoss:
    def test_hand_computed(self) -> None:
        logits = torch.tensor([[LN3, LN3]], dtype=torch.float64)
        for alpha, gamma in ((0.25, 2.0), (0.5, 2.0), (0.25, 1.0)):
            positive = alpha * 0.25**gamma * math.log(4 / 3)
            negative = (1 - alpha) * 0.75**gamma * LN4
            got = FocalLoss(alpha, gamma)(
                logits, torch.tensor([0]), torch.tensor([1]), torch.tensor([0.3])
            )
            assert got.item() == pytest.approx(positive + negative), (alpha, gamma)

    def test_iou_of_the_boxes_has_no_influence(self) -> None:
        logits, idx = torch.randn(4, 2), torch.tensor([1])
        a, b = (FocalLoss()(logits, idx, idx, torch.tensor([x])) for x in (0.1, 0.9))
        assert torch.equal(a, b)

    def test_gradient(self) -> None:
        """Against equation 5 in float64; the loss itself computes in float32 whatever it gets."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        idx = torch.tensor([0, 2])
        FocalLoss()(logits, idx, idx, torch.ones(2)).backward()
        got, logits.grad = logits.grad, None
        positive = torch.zeros(5, 3, dtype=torch.bool)
        positive[idx, idx] = True
        p_t = torch.where(positive, logits.sigmoid(), 1 - logits.sigmoid())
        alpha_t = torch.where(positive, 0.25, 0.75)
        (-alpha_t * (1 - p_t) ** 2 * p_t.log()).sum().backward()
        torch.testing.assert_close(got, logits.grad, rtol=1e-5, atol=1e-6)


NEGATIVE, NO_NUMBER = "must not be negative, got ", "must be a finite number, got "
NO_SHARE = "must be a number from 0 to 1, got "


@pytest.mark.parametrize(
    ("loss", "name", "value", "message"),
    [
        (VarifocalLoss, "alpha", -0.75, NEGATIVE),
        (VarifocalLoss, "alpha", math.inf, NO_NUMBER),
        (VarifocalLoss, "gamma", -1, NEGATIVE),
        (VarifocalLoss, "gamma", math.nan, NO_NUMBER),
        (VarifocalLoss, "gamma", None, NO_NUMBER),
        (VarifocalLoss, "gamma", "2.0", NO_NUMBER),
        (VarifocalLoss, "min_iou", 1.5, NO_SHARE),
        (FocalLoss, "alpha", -0.25, NO_SHARE),
        (FocalLoss, "alpha", 1.25, NO_SHARE),
        (FocalLoss, "alpha", math.nan, NO_SHARE),
        (FocalLoss, "gamma", -2.0, NEGATIVE),
        (GuidedFocalLoss, "alpha", 2.0, NO_SHARE),
        (GuidedFocalLoss, "gamma", math.inf, NO_NUMBER),
        (GuidedFocalLoss, "eta", -1.5, NEGATIVE),
        (QualityFocalLoss, "beta", -1, NEGATIVE),
        (QualityFocalLoss, "beta", math.nan, NO_NUMBER),
        (SmoothL1BoxLoss, "beta", -0.1, NEGATIVE),
        (GeneralDistribution, "interval", math.inf, NO_NUMBER),
        (GaussianDistribution, "max_log_variance", -8.0, NEGATIVE),
    ],
)
def test_parameters_that_mean_no_loss_are_refused(loss, name: str, value, message: str) -> None:
    """A negative weight would make mistakes the aim; it gave a number all the same."""
    with pytest.raises(ValueError, match=f"^{name} {message}{value}|^{name} {message}'"):
        loss(**{name: value})
    loss(**{name: 1})


@pytest.mark.parametrize("make", [tiny_vfnet, tiny_gfl, tiny_yolof])
def test_weights_of_losses_are_not_negative(make) -> None:
    with pytest.raises(ValueError, match="box_weight must not be negative, got -2"):
        make(box_weight=-2)


@pytest.mark.parametrize("loss", [VarifocalLoss(), FocalLoss(), VarifocalLoss(gamma=1.0)])
@pytest.mark.parametrize("positives", [0, 2])
def test_classification_of_extreme_logits_is_finite(loss, positives: int) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 200.0]], requires_grad=True)
    idx = torch.arange(positives)
    value = loss(logits, idx, idx * 0, torch.full((positives,), 0.6))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    # Confidently wrong negatives are what this loss is for.
    assert value > 1e4 * 0.7


@pytest.mark.parametrize("loss", [VarifocalLoss(), FocalLoss()])
def test_classification_without_positives_is_that_of_the_background(loss) -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    value = loss(logits, none, none, torch.zeros(0))
    # alpha is 3/4 for negatives in both.
    assert value.item() == pytest.approx(12 * 0.75 * 0.25 * LN2)
    value.backward()
    assert (logits.grad > 0).all()


def boxes(min_side: float = 0.0) -> st.SearchStrategy[Tensor]:
    coordinate = st.floats(-200, 200, width=32)
    side = st.floats(min_side, 200, width=32)
    return st.builds(
        lambda x, y, w, h: torch.tensor([[x, y, x + w, y + h]]), coordinate, coordinate, side, side
    )


class TestOverlap:
    def test_hand_computed(self) -> None:
        a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
        assert aligned_iou(a, b).item() == pytest.approx(1 / 7)
        assert giou_loss(a, b).item() == pytest.approx(1 - 1 / 7 + 2 / 9)

    def test_apart(self) -> None:
        a, b = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]])
        assert aligned_iou(a, b).item() == 0
        assert giou_loss(a, b).item() == pytest.approx(1 + 2 / 4)

    def test_eps_is_the_smallest_union(self) -> None:
        a = torch.tensor([[0.0, 0, 0.1, 0.1]])
        assert aligned_iou(a, a).item() == pytest.approx(1)
        assert aligned_iou(a, a, eps=0.1).item() == pytest.approx(0.1)
        assert giou_loss(a, a, eps=0.1).item() == pytest.approx(0.9)

    @given(a=boxes(), b=boxes())
    def test_iou_is_symmetric_and_in_range(self, a: Tensor, b: Tensor) -> None:
        iou = aligned_iou(a, b)
        assert torch.equal(iou, aligned_iou(b, a))
        assert 0 <= iou.item() <= 1 + 1e-5

    @given(a=boxes(), b=boxes())
    def test_giou_loss_is_in_range_and_never_kinder_than_iou(self, a: Tensor, b: Tensor) -> None:
        loss = giou_loss(a, b)
        assert torch.equal(loss, giou_loss(b, a))
        assert -1e-5 <= loss.item() <= 2 + 1e-5
        assert loss.item() >= 1 - aligned_iou(a, b).item() - 1e-5

    @given(a=boxes(min_side=1.0))
    def test_a_box_overlaps_itself_wholly(self, a: Tensor) -> None:
        assert aligned_iou(a, a).item() == pytest.approx(1, abs=1e-5)
        assert giou_loss(a, a).item() == pytest.approx(0, abs=1e-5)

    @given(a=boxes(min_side=1.0), b=boxes(min_side=1.0))
    @settings(max_examples=25)
    def test_pairs_are_independent(self, a: Tensor, b: Tensor) -> None:
        both = giou_loss(torch.cat([a, b]), torch.cat([b, b]))
        assert torch.equal(both, torch.cat([giou_loss(a, b), giou_loss(b, b)]))

    def test_degenerate_boxes_give_finite_values_and_gradients(self) -> None:
        point, line = [5.0, 5, 5, 5], [0.0, 5, 9, 5]
        a = torch.tensor([point, point, line, point], requires_grad=True)
        b = torch.tensor([point, [7.0, 7, 7, 7], line, [0.0, 0, 10, 10]])
        assert aligned_iou(a.detach(), b).tolist() == [0, 0, 0, 0]
        loss = giou_loss(a, b)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert a.grad.isfinite().all()

    def test_gradcheck(self) -> None:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.rand(8, 4, generator=generator, dtype=torch.float64) * 10 for _ in range(2))
        a[:, 2:] += a[:, :2] + 1
        b[:, 2:] += b[:, :2] + 1
        a.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: giou_loss(x, b), a)

    def test_distant_boxes_are_pulled_together(self) -> None:
        """Where IoU is flat, GIoU still has a gradient."""
        a = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
        giou_loss(a, torch.tensor([[5.0, 0, 6, 1]])).sum().backward()
        assert a.grad[0, 2].item() < 0  # a larger right side lowers the loss

    def test_no_pairs_sum_to_zero_within_the_graph(self) -> None:
        a = torch.zeros(0, 4, requires_grad=True)
        loss = giou_loss(a, torch.zeros(0, 4)).sum()
        loss.backward()
        assert loss.item() == 0
        assert a.grad.shape == (0, 4)


class TestCenterness:
    def test_hand_computed(self) -> None:
        ltrb = torch.tensor([[1.0, 2, 4, 2], [1.0, 2, 4, 8], [3.0, 3, 3, 3]])
        want = torch.tensor([math.sqrt(1 / 4), math.sqrt(1 / 4 * 2 / 8), 1.0])
        torch.testing.assert_close(centerness_target(ltrb), want)

    def test_border_outside_and_empty_boxes_are_zero(self) -> None:
        ltrb = torch.tensor([[0.0, 2, 4, 2], [-1.0, 2, 4, 2], [0.0, 0, 0, 0]])
        assert centerness_target(ltrb).tolist() == [0, 0, 0]

    @given(st.lists(st.floats(0, 1e4, width=32), min_size=4, max_size=4))
    def test_range_and_mirror(self, sides: list[float]) -> None:
        left, top, right, bottom = sides
        value = centerness_target(torch.tensor(sides)).item()
        mirrored = centerness_target(torch.tensor([right, bottom, left, top])).item()
        assert 0 <= value <= 1
        assert value == mirrored


class TestSyncedMean:
    """In one process; tests/modeling/test_distributed.py has two."""

    def test_is_the_value_but_at_least_the_minimum(self) -> None:
        assert synced_mean(torch.tensor(5.5)).item() == 5.5
        assert synced_mean(torch.tensor(0.3)).item() == 1.0
        assert synced_mean(torch.tensor(0.3), minimum=0.1).item() == pytest.approx(0.3)

    def test_has_no_gradient_and_leaves_its_argument(self) -> None:
        value = torch.tensor(3.0, requires_grad=True)
        result = synced_mean(value * 2)
        assert not result.requires_grad
        result += 1
        assert value.item() == 3.0

    def test_counts_become_float32(self) -> None:
        assert synced_mean(torch.tensor(4)).dtype == torch.float32
