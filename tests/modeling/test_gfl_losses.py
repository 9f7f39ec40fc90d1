"""Generalized focal losses: special cases, global minima, gradients and safety."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from vfnet_yolof.modeling.losses import (
    FocalLoss,
    GuidedFocalLoss,
    QualityFocalLoss,
    distribution_focal_loss,
    generalized_focal_loss,
    quality_focal_loss,
)

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
BETAS = [0.0, 1.0, 2.0, 2.5, 4.0]
f64 = {"dtype": torch.float64}


def qfl(logit: float, target: float, beta: float = 2.0) -> float:
    return quality_focal_loss(
        torch.tensor([[logit]], **f64), torch.tensor([[target]], **f64), beta=beta
    ).item()


def gfl_of_sigmoid(logits: Tensor, target: Tensor, beta: float, **values: float) -> Tensor:
    return generalized_focal_loss(
        F.logsigmoid(-logits), F.logsigmoid(logits), target, beta=beta, reduction="none", **values
    )


class TestGeneralForm:
    @pytest.mark.parametrize("beta", BETAS)
    def test_hand_computed(self, beta: float) -> None:
        """Between 2 and 4, at probability 3/4 for 4: the estimate is 3.5."""
        got = gfl_of_sigmoid(
            torch.tensor(LN3, **f64), torch.tensor(2.5, **f64), beta, left=2, right=4
        )
        assert got.item() == pytest.approx(1.0**beta * (1.5 * LN4 + 0.5 * math.log(4 / 3)))
        got = gfl_of_sigmoid(
            torch.tensor(LN3, **f64), torch.tensor(4.0, **f64), beta, left=2, right=4
        )
        assert got.item() == pytest.approx(0.5**beta * 2 * math.log(4 / 3))

    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
    def test_focal_loss_is_the_case_of_hard_targets(self, gamma: float) -> None:
        """Equation 8; alpha of 1/2 is the focal loss without alpha, halved."""
        logits = torch.linspace(-6, 6, 24).reshape(6, 4)
        rows, classes = torch.tensor([0, 3, 5]), torch.tensor([1, 0, 3])
        target = torch.zeros(6, 4)
        target[rows, classes] = 1
        want = FocalLoss(alpha=0.5, gamma=gamma)(logits, rows, classes, torch.ones(3))
        got = gfl_of_sigmoid(logits, target, gamma).sum() / 2
        torch.testing.assert_close(got, want, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("beta", BETAS)
    def test_qfl_is_the_case_of_values_0_and_1(self, beta: float) -> None:
        """Equation 9."""
        logits = torch.linspace(-9, 9, 40, **f64)
        target = torch.linspace(0, 1, 40, **f64).roll(17)
        got = quality_focal_loss(logits, target, beta=beta, reduction="none")
        torch.testing.assert_close(got, gfl_of_sigmoid(logits, target, beta))

    def test_dfl_is_the_case_of_neighbouring_bins_without_modulation(self) -> None:
        """Equation 10, against the cross entropy with the two bins' shares as soft labels."""
        logits = torch.randn(30, 9, generator=torch.Generator().manual_seed(0), **f64)
        target = torch.linspace(0, 8, 30, **f64)
        bins = torch.arange(9, **f64)
        shares = (1 - (bins - target[:, None]).abs()).clamp(min=0)
        want = F.cross_entropy(logits, shares, reduction="none")
        got = distribution_focal_loss(logits, target, reduction="none")
        torch.testing.assert_close(got, want)

    @given(
        target=st.floats(0.02, 0.98),
        left=st.floats(-3, 3),
        width=st.floats(0.1, 5),
        beta=st.sampled_from(BETAS),
        off=st.floats(-4, 4).filter(lambda x: abs(x) > 1e-2),
    )
    def test_global_minimum_interpolates_the_target(self, target, left, width, beta, off) -> None:
        """Section 3, properties of GFL: nothing is below the linear interpolation."""
        best = torch.logit(torch.tensor(target, **f64))
        y = torch.tensor(left + target * width, **f64)

        def loss(logit: Tensor) -> float:
            values = dict(left=left, right=left + width)
            return gfl_of_sigmoid(logit, y, beta, **values).item()

        assert loss(best) < loss(best + off)


class TestQualityFocalLoss:
    @pytest.mark.parametrize("beta", BETAS)
    def test_hand_computed(self, beta: float) -> None:
        """At probability 3/4; equation 2."""
        assert qfl(LN3, 0.0, beta) == pytest.approx(0.75**beta * LN4)
        cross_entropy = 0.5 * LN4 + 0.5 * math.log(4 / 3)
        assert qfl(LN3, 0.5, beta) == pytest.approx(0.25**beta * cross_entropy)

    @given(target=st.floats(0.01, 0.99), beta=st.floats(0, 4), off=st.floats(0.01, 5))
    def test_minimum_is_where_the_score_is_the_quality(self, target, beta, off) -> None:
        best = math.log(target / (1 - target))
        assert qfl(best, target, beta) < qfl(best + off, target, beta)
        assert qfl(best, target, beta) < qfl(best - off, target, beta)

    @given(logit=st.floats(-15, 15), beta=st.floats(0, 4), off=st.floats(0.01, 5))
    def test_hard_targets_are_approached_for_ever(self, logit, beta, off) -> None:
        assert qfl(logit + off, 0.0, beta) > qfl(logit, 0.0, beta)
        assert qfl(logit - off, 1.0, beta) > qfl(logit, 1.0, beta)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 2.5])
    def test_gradient_vanishes_at_the_minimum(self, beta: float) -> None:
        target = torch.tensor([[0.3, 0.5, 0.9]], **f64)
        logits = target.logit().requires_grad_()
        quality_focal_loss(logits, target, beta=beta).backward()
        assert logits.grad.abs().max() < 1e-9

    @pytest.mark.parametrize("beta", BETAS)
    def test_gradcheck(self, beta: float) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(6, 4, generator=generator, requires_grad=True, **f64)
        target = torch.rand(6, 4, generator=generator, **f64)
        target[::2] = 0
        assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, target, beta=beta), logits)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("beta", BETAS)
    def test_extreme_logits_stay_finite(self, dtype: torch.dtype, beta: float) -> None:
        logits = torch.tensor([[-1e4, -100, 0, 100, 1e4]], dtype=dtype).repeat(3, 1)
        logits.requires_grad_()
        target = torch.tensor([[0.0], [0.5], [1.0]], dtype=dtype).expand_as(logits)
        loss = quality_focal_loss(logits, target, beta=beta, reduction="none")
        loss.sum().backward()
        assert loss.isfinite().all()
        assert logits.grad.isfinite().all()
        assert (loss[0, 0], loss[2, -1]) == (0, 0)

    def test_sparse_positives_are_the_dense_loss(self) -> None:
        logits = torch.randn(7, 4)
        target = torch.zeros(7, 4)
        target[5, 3], target[0, 1] = 0.9, 0.2
        sparse = (torch.tensor([5, 0]), torch.tensor([3, 1]), torch.tensor([0.9, 0.2]))
        for beta in BETAS:
            got = QualityFocalLoss(beta)(logits, *sparse)
            assert torch.equal(got, quality_focal_loss(logits, target, beta=beta)), beta

    def test_without_positives_and_with_one_class(self) -> None:
        logits = torch.randn(5, 1, requires_grad=True)
        none = torch.zeros(0, dtype=torch.int64)
        loss = QualityFocalLoss()(logits, none, none, torch.zeros(0))
        loss.backward()
        assert loss > 0
        assert logits.grad.isfinite().all()

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="beta must not be negative, got -1"):
            QualityFocalLoss(-1)
        with pytest.raises(ValueError, match="'sum' or 'none', got 'mean'"):
            quality_focal_loss(torch.zeros(1), torch.zeros(1), reduction="mean")


class TestDistributionFocalLoss:
    def test_hand_computed(self) -> None:
        """Probabilities 1/8, 1/2, 3/8 and a target of 1.25; equation 6."""
        logits = torch.tensor([1.0, 4.0, 3.0], **f64).log()
        got = distribution_focal_loss(logits, torch.tensor(1.25, **f64))
        assert got.item() == pytest.approx(0.75 * LN2 + 0.25 * math.log(8 / 3))

    @given(target=st.floats(0, 7), seed=st.integers(0, 99))
    def test_no_distribution_is_better_than_the_two_bins(self, target: float, seed: int) -> None:
        """S_i = y_i+1 - y, S_i+1 = y - y_i is the global minimum, and its mean is the target."""
        y = torch.tensor(target, **f64)
        bins = torch.arange(8, **f64)
        best = (1 - (bins - y).abs()).clamp(min=1e-12)
        assert (best @ bins).item() == pytest.approx(target, abs=1e-9)
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(8, generator=generator, **f64)
        floor = distribution_focal_loss(best.log(), y)
        assert floor < distribution_focal_loss(logits, y)
        assert floor <= distribution_focal_loss(best.log() + 0.1 * logits, y) + 1e-9

    def test_descent_ends_at_the_two_bins(self) -> None:
        target = torch.tensor([2.3], **f64)
        logits = torch.zeros(1, 6, requires_grad=True, **f64)
        for _ in range(4000):
            (gradient,) = torch.autograd.grad(distribution_focal_loss(logits, target), logits)
            logits.data -= 2 * gradient
        want = torch.tensor([[0, 0, 0.7, 0.3, 0, 0]], **f64)
        torch.testing.assert_close(logits.detach().softmax(-1), want, atol=1e-3, rtol=0)

    def test_at_the_ends(self) -> None:
        logits = torch.randn(2, 5, **f64)
        got = distribution_focal_loss(logits, torch.tensor([0.0, 4.0], **f64), reduction="none")
        want = -torch.stack([logits.log_softmax(-1)[0, 0], logits.log_softmax(-1)[1, 4]])
        torch.testing.assert_close(got, want)

    def test_gradcheck(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(3, 4, 6, generator=generator, requires_grad=True, **f64)
        target = 5 * torch.rand(3, 4, generator=generator, **f64)
        assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, target), logits)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_logits_stay_finite(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4, -1e4, 0, 0], [-1e4, 1e4, 1e4, 0]], dtype=dtype)
        logits.requires_grad_()
        loss = distribution_focal_loss(logits, torch.tensor([2.5, 0.0], dtype=dtype))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()

    def test_without_positives(self) -> None:
        logits = torch.zeros(0, 4, 17, requires_grad=True)
        loss = distribution_focal_loss(logits, torch.zeros(0, 4))
        loss.backward()
        assert loss == 0


class TestGuidedFocalLoss:
    logits = torch.tensor([[0.3, -1.0], [-0.5, 0.8], [0.1, 0.2]], **f64).float()
    rows, classes = torch.tensor([0, 1]), torch.tensor([1, 1])

    def loss(self, quality: list[float], logits: Tensor | None = None, **options: float) -> Tensor:
        logits = self.logits if logits is None else logits
        return GuidedFocalLoss(**options)(logits, self.rows, self.classes, torch.tensor(quality))

    def test_its_value_is_the_focal_loss(self) -> None:
        """Weights only share the positives' sum out anew."""
        want = FocalLoss()(self.logits, self.rows, self.classes, torch.ones(2))
        for quality in ([1.0, 1.0], [0.9, 0.1], [0.0, 0.5], [0.0, 0.0]):
            torch.testing.assert_close(self.loss(quality), want)

    def gradient(self, quality: list[float], **options: float) -> Tensor:
        logits = self.logits.clone().requires_grad_()
        self.loss(quality, logits, **options).backward()
        return logits.grad

    def test_better_boxes_pull_harder(self) -> None:
        plain = self.gradient([1.0, 1.0])
        for eta in (1.0, 1.5):
            ratio = self.gradient([0.8, 0.2], eta=eta) / plain
            guided = ratio[self.rows, self.classes]
            assert (guided[0] / guided[1]).item() == pytest.approx(4.0**eta, rel=1e-4)
            assert guided[0] > 1 > guided[1]
            ratio[self.rows, self.classes] = 1
            torch.testing.assert_close(ratio, torch.ones_like(ratio))

    def test_alpha_and_gamma_are_those_of_the_focal_loss(self) -> None:
        want = FocalLoss(0.4, 1.0)(self.logits, self.rows, self.classes, torch.ones(2))
        torch.testing.assert_close(self.loss([0.3, 0.6], alpha=0.4, gamma=1.0), want)

    def test_without_positives(self) -> None:
        none, logits = torch.zeros(0, dtype=torch.int64), torch.randn(3, 2, requires_grad=True)
        loss = GuidedFocalLoss()(logits, none, none, torch.zeros(0))
        loss.backward()
        assert loss > 0
        assert logits.grad.isfinite().all()
