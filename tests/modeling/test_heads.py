"""What heads return, how they begin, and that all of their parameters learn."""

import pytest
import torch
from detectron2.config import LazyCall
from tiny import empty_picture, picture, tiny_atss, tiny_gfl, tiny_vfnet
from vfnet_yolof.config.overrides import parameters_of
from vfnet_yolof.layers.conv import ConvNormAct, Scale, bias_for_prior, conv_tower
from vfnet_yolof.layers.deform_conv import ModulatedDeformConvPack
from vfnet_yolof.layers.star_conv import StarOffsets
from vfnet_yolof.modeling.heads import GFLHead, PointHead, PointPredictions, VFNetHead
from vfnet_yolof.modeling.meta_arch import IoUTarget
from vfnet_yolof.modeling.representations import (
    DiracDelta,
    GaussianDistribution,
    GeneralDistribution,
)

STRIDES = (8, 16)
SMALL = dict(in_channels=32, conv_channels=32, num_classes=5, num_convs=2, strides=STRIDES)


def vfnet_head(**options) -> VFNetHead:
    torch.manual_seed(0)
    return VFNetHead(**{**SMALL, "reg_denom": (64, 128), **options})


def point_head(**options) -> GFLHead:
    torch.manual_seed(0)
    return PointHead(**{**SMALL, **options})


def gfl_head(**options) -> GFLHead:
    torch.manual_seed(0)
    return GFLHead(**{**SMALL, **options})


def decoded(head: GFLHead, predictions: PointPredictions) -> list[torch.Tensor]:
    """Distances (N, H, W, 4) in pixels of each level."""
    return [
        head.representation.decode(x.permute(0, 2, 3, 1)) * stride
        for x, stride in zip(predictions.sides, head.strides, strict=True)
    ]


def features(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 32, n, n + 1, generator=generator) for n in (6, 3)]


def test_shapes_of_vfnet_predictions() -> None:
    got = vfnet_head()(features())
    assert [tuple(x.shape) for x in got.logits] == [(2, 5, 6, 7), (2, 5, 3, 4)]
    for boxes in (got.sides, got.ltrb_init):
        assert [tuple(x.shape) for x in boxes] == [(2, 4, 6, 7), (2, 4, 3, 4)]
        assert all((x > 0).all() for x in boxes)
    assert got.quality_logits is None


def test_shapes_of_point_predictions() -> None:
    got = point_head()(features())
    assert [tuple(x.shape) for x in got.quality_logits] == [(2, 1, 6, 7), (2, 1, 3, 4)]
    assert got.ltrb_init is None
    assert point_head(centerness=False)(features()).quality_logits is None


@pytest.mark.parametrize(
    ("representation", "channels"),
    [
        (None, 68),
        (GeneralDistribution(8, 2.0), 36),
        (DiracDelta(), 4),
        (GaussianDistribution(), 8),
    ],
)
def test_shapes_of_side_predictions(representation, channels: int) -> None:
    got = gfl_head(representation=representation)(features())
    assert [tuple(x.shape) for x in got.logits] == [(2, 5, 6, 7), (2, 5, 3, 4)]
    assert [tuple(x.shape) for x in got.sides] == [(2, channels, 6, 7), (2, channels, 3, 4)]
    assert got.quality_logits is None
    got = gfl_head(representation=representation, quality=True)(features())
    assert [tuple(x.shape) for x in got.quality_logits] == [(2, 1, 6, 7), (2, 1, 3, 4)]


@pytest.mark.parametrize("head", [vfnet_head(), gfl_head()])
def test_initial_scores_are_the_prior(head) -> None:
    for logits in head(features()).logits:
        assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
    rare = type(head)(**SMALL, prior_prob=0.3, **_denominators(head))
    for logits in rare(features()).logits:
        assert logits.sigmoid().mean().item() == pytest.approx(0.3, rel=0.1)


def _denominators(head) -> dict:
    return {"reg_denom": head.reg_denom} if isinstance(head, VFNetHead) else {}


def test_prior_must_be_a_probability() -> None:
    assert torch.tensor(bias_for_prior(0.2)).sigmoid().item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"prior probability must lie in \(0, 1\), got 1.0"):
        bias_for_prior(1.0)


def test_initial_boxes_are_about_the_denominator() -> None:
    """exp(0) of the level's unit: reg_denom in VFNet, raw or whole, the stride in FCOS."""
    with torch.no_grad():
        for head, units in (
            (vfnet_head(), (64, 128)),
            (point_head(), STRIDES),
            (point_head(reg_denom=(64, 128)), (64, 128)),
        ):
            got = head(features())
            for ltrb, unit in zip(got.ltrb_init or decoded(head, got), units, strict=True):
                assert ltrb.mean().item() == pytest.approx(unit, rel=0.15)


def test_a_point_head_has_one_unit() -> None:
    """In strides: VFNet's 64 to 1024 pixels are 8 of them on each level."""
    assert PointHead(reg_denom=(64, 128, 256, 512, 1024)).representation.unit == 8
    assert PointHead().representation.unit == 1
    with pytest.raises(ValueError, match=r"must be one multiple of the strides \(8, 16\) on all"):
        point_head(reg_denom=(64, 64))


def test_refined_boxes_are_factors_on_the_initial_ones() -> None:
    head = vfnet_head()
    torch.nn.init.zeros_(head.reg_refine.weight)
    torch.nn.init.constant_(head.reg_refine.bias, 0.5)
    for scale in head.scales_refine:
        torch.nn.init.constant_(scale.scale, 2.0)
    got = head(features())
    for refined, initial in zip(got.sides, got.ltrb_init, strict=True):
        torch.testing.assert_close(refined, initial * torch.tensor(1.0).exp())


def test_refinement_passes_no_gradient_through_the_initial_box_itself() -> None:
    """With constant factors only the star offsets lead back, by gradient_mul."""
    for gradient_mul, learns in ((0.0, False), (0.1, True)):
        head = vfnet_head(gradient_mul=gradient_mul)
        torch.nn.init.normal_(head.reg_refine.weight, std=0.1)
        sum(x.sum() for x in head(features()).sides).backward()
        assert (head.reg_init.weight.grad.abs().sum().item() > 0) == learns


def test_gradient_mul_scales_what_the_star_passes_back() -> None:
    grads = []
    for gradient_mul in (0.1, 0.2):
        head = vfnet_head(gradient_mul=gradient_mul)
        sum(x.sum() for x in head(features()).logits).backward()
        grads.append(head.reg_init.weight.grad)
    torch.testing.assert_close(grads[1], 2 * grads[0], rtol=1e-3, atol=1e-8)


def test_star_offsets_are_in_cells_of_the_level() -> None:
    """A box of one stride to each side has its star on the regular grid."""
    assert StarOffsets()(torch.full((1, 4, 1, 1), 16.0), 16).abs().max() == 0


def test_without_refinement_the_initial_box_is_the_final_one() -> None:
    full, raw = vfnet_head(), vfnet_head(refine=False)
    names = {name.split(".")[0] for name, _ in full.named_parameters()}
    left = {name.split(".")[0] for name, _ in raw.named_parameters()}
    assert names - left == {"reg_star", "reg_refine", "scales_refine"}
    raw.load_state_dict(full.state_dict(), strict=False)
    got, want = raw(features()), full(features())
    assert got.ltrb_init is None
    for ours, theirs in zip(got.sides, want.ltrb_init, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(got.logits, want.logits, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [vfnet_head, point_head, gfl_head])
def test_dcn_on_last_conv_makes_only_each_towers_last_one_deformable(make) -> None:
    head = make(dcn_on_last_conv=True)
    deformable = {k for k, m in head.named_modules() if isinstance(m, ModulatedDeformConvPack)}
    assert deformable == {"cls_tower.1.conv", "reg_tower.1.conv"}
    plain = {k for k, m in make().named_modules() if isinstance(m, ModulatedDeformConvPack)}
    assert not plain
    # Deformed or not, the towers' weights have the same names and shapes.
    shapes = {k: v.shape for k, v in head.named_parameters() if "conv_offset" not in k}
    assert shapes == {k: v.shape for k, v in make().named_parameters()}
    sum(x.sum() for x in head(features()).logits).backward()
    assert head.cls_tower[1].conv.conv_offset.weight.grad.abs().sum() > 0


def test_every_level_has_its_own_scale() -> None:
    head = point_head()
    before = decoded(head, head(features()))
    head.scales[1].scale.data.fill_(3.0)
    after = decoded(head, head(features()))
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close((after[1] / 16).log(), (before[1] / 16).log() * 3)


def test_scales_of_gfl_multiply_the_logits_of_the_sides() -> None:
    head = gfl_head()
    before = head(features()).sides
    head.scales[1].scale.data.fill_(3.0)
    after = head(features()).sides
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(after[1], 3 * before[1])


def test_gfl_begins_without_an_opinion_on_the_sides() -> None:
    """About uniform distributions, so boxes of about 8 strides to each side."""
    head = gfl_head()
    for raw in head(features()).sides:
        got = head.representation.statistics(raw.permute(0, 2, 3, 1))
        assert got.mean.mean().item() == pytest.approx(8, rel=0.05)
        assert got.entropy.min() > 0.9 * torch.tensor(17.0).log()


def test_the_number_of_levels_must_fit() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        vfnet_head(reg_denom=(64, 128, 256))
    with pytest.raises(ValueError, match="differ in length"):
        point_head(reg_denom=(64, 128, 256))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        point_head(strides=(8, 16, 32))(features())


class TestTower:
    def test_first_block_changes_the_width(self) -> None:
        tower = conv_tower(16, 32, 3)
        assert [m.conv.weight.shape[:2] for m in tower] == [(32, 16), (32, 32), (32, 32)]

    def test_bias_only_without_norm(self) -> None:
        assert ConvNormAct(32, 32).conv.bias is None
        assert ConvNormAct(32, 32, norm="").conv.bias is not None

    def test_group_norm_needs_a_multiple_of_32(self) -> None:
        with pytest.raises(ValueError, match="divisible by 32, got 48"):
            ConvNormAct(32, 48)

    def test_scale_starts_at_its_value(self) -> None:
        assert Scale(1.5)(torch.tensor(2.0)).item() == 3.0


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (tiny_vfnet, {}),
        (tiny_vfnet, {"head__refine": False}),
        (tiny_vfnet, {"head__dcn_on_last_conv": True}),
        (tiny_atss, {}),
        (tiny_atss, {"head__dcn_on_last_conv": True}),
        (tiny_gfl, {}),
        (tiny_gfl, {"head__quality": True, "quality": IoUTarget()}),
        (tiny_gfl, {"head__representation": GaussianDistribution()}),
    ],
)
class TestEveryParameter:
    # The boxes are found on all levels, so that each level's scales learn.
    boxes = ([4, 4, 40, 36], [0, 0, 128, 128], [60, 60, 76, 80], [-300, -300, 400, 400])

    def test_learns_from_a_normal_batch(self, make, options) -> None:
        model = make(**options)
        sizes = (256, 256)
        boxes = [*self.boxes, [0, 0, 256, 256], [-100, -100, 350, 350], [-900, -900, 1100, 1100]]
        sum(model([picture(boxes, size=sizes), empty_picture(sizes)]).values()).backward()
        idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []

    def test_has_a_gradient_even_if_there_is_no_box(self, make, options) -> None:
        """Distributed training waits for a gradient of every parameter."""
        model = make(**options)
        sum(model([empty_picture(), empty_picture()]).values()).backward()
        missing = [k for k, p in model.named_parameters() if p.grad is None]
        assert missing == []
        assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("head", [GFLHead, VFNetHead])
def test_the_options_that_heads_share_have_the_papers_values(head) -> None:
    """Also as keys of a configuration: a misspelt one, and one that no head has, are refused."""
    node = LazyCall(head)()
    known = parameters_of(node)
    assert {"num_classes", "in_channels", "norm", "strides", "prior_prob"} <= set(known)
    assert known["num_convs"].default == (3 if head is VFNetHead else 4)
    assert (known["num_classes"].default, known["conv_channels"].default) == (80, 256)
    assert "reg_channels" not in known
    with pytest.raises(TypeError, match="normm"):
        head(normm="BN")
