"""ResNets: what learns, what stays, how large they are."""

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.layers.deform_conv import DeformConvPack, ModulatedDeformConvPack
from vfnet_yolof.modeling.backbones import LastLevelP6P7NoReLU, StaticBatchNorm2d, build_resnet


def small(depth: int = 50, **options) -> nn.Module:
    return build_resnet(
        depth, **{"stem_channels": 8, "width_per_group": 8, "res2_channels": 16, **options}
    )


class TestStaticBatchNorm:
    def test_keeps_its_statistics_and_trains_its_affine_part(self) -> None:
        norm = StaticBatchNorm2d(3)
        norm.train()
        norm(5 + torch.randn(4, 3, 2, 2)).square().sum().backward()
        assert norm.running_mean.tolist() == [0, 0, 0]
        assert norm.running_var.tolist() == [1, 1, 1]
        assert norm.num_batches_tracked == 0
        assert norm.weight.grad.abs().min() > 0
        assert norm.bias.grad.abs().min() > 0

    def test_gives_the_same_in_training_and_evaluation(self) -> None:
        norm, x = StaticBatchNorm2d(3), torch.randn(4, 3, 2, 2)
        norm.running_mean += 0.5
        assert torch.equal(norm.train()(x), norm.eval()(x))

    @pytest.mark.parametrize("prepare", [nn.Module.train, lambda model: model])
    def test_inside_a_model_set_to_train_or_just_built(self, prepare) -> None:
        model = prepare(small())
        assert model.training
        before = {k: v.clone() for k, v in model.named_buffers()}
        model(torch.randn(2, 3, 64, 64))
        changed = [k for k, v in model.named_buffers() if not torch.equal(v, before[k])]
        assert changed == []


def frozen_parts(model: nn.Module) -> set[str]:
    """Stages in which nothing is trainable and every norm is frozen."""
    return {
        name
        for name, stage in model.named_children()
        if not any(p.requires_grad for p in stage.parameters())
        and all(not isinstance(m, nn.BatchNorm2d) for m in stage.modules())
        and any(isinstance(m, FrozenBatchNorm2d) for m in stage.modules())
    }


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, set()), (1, {"stem"}), (2, {"stem", "res2"})]
)
def test_freeze_at(freeze_at: int, frozen: set[str]) -> None:
    model = small(freeze_at=freeze_at)
    assert frozen_parts(model) == frozen
    rest = {name for name, _ in model.named_children()} - frozen
    for name in rest:
        assert all(p.requires_grad for p in model.get_submodule(name).parameters()), name
        norms = [m for m in model.get_submodule(name).modules() if "Norm" in type(m).__name__]
        assert {type(m) for m in norms} == {StaticBatchNorm2d}


@pytest.mark.parametrize(
    ("norm", "kind"), [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d)]
)
def test_other_norms(norm: str, kind: type) -> None:
    model = small(norm=norm, freeze_at=0)
    assert type(model.res3[0].conv1.norm) is kind


# Millions of parameters of the reference's detectors with 80 classes. It counts the weights and
# biases of frozen batch norms, which are buffers here.
X101_32, X101_64 = ({"depth": 101, "num_groups": n, "width_per_group": 4} for n in (32, 64))
SIZES = {
    "VFNet R-50": ({}, 32.89),
    "VFNet R-50 with DCN": ({"dcn": True}, 33.89),
    "VFNet R-101": ({"depth": 101}, 51.88),
    "VFNet R-101 with DCN": ({"depth": 101, "dcn": True}, 53.94),
    "VFNet X-101-32x4d": (X101_32, 51.51),
    "VFNet X-101-32x4d with DCN": ({**X101_32, "dcn": True}, 55.49),
    "VFNet X-101-64x4d": (X101_64, 90.79),
    "VFNet X-101-64x4d with DCN": ({**X101_64, "dcn": True}, 98.63),
    "GFL R-50": ({}, 32.44),
    "GFL R-101": ({"depth": 101}, 51.4),
    "GFL X-101-32x4d": (X101_32, 51.1),
}


@pytest.mark.parametrize("name", SIZES)
def test_number_of_parameters(name: str) -> None:
    options, want = SIZES[name]
    detector = name.split()[0].lower()
    config = load_config(f"{detector}/{detector}_r50_fpn_1x.py")
    options = dict(options)
    if options.pop("dcn", False):
        config.model.backbone.bottom_up.deform_stages = [3, 4, 5]
        config.model.head.dcn_on_last_conv = True
    config.model.backbone.bottom_up.update(options)
    with torch.device("meta"):
        model = instantiate(config.model)
    count = sum(p.numel() for p in model.parameters())
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            count += module.weight.numel() + module.bias.numel()
    assert count / 1e6 == pytest.approx(want, rel=0.005)


def test_p7_without_a_relu() -> None:
    """What is negative on P6 reaches P7."""
    block = LastLevelP6P7NoReLU(4, 4, in_feature="p5")
    assert {k.split(".")[0] for k in block.state_dict()} == {"p6", "p7"}
    p6, p7 = block(torch.randn(1, 4, 8, 8))
    assert (p6 < 0).any()
    assert torch.equal(p7, block.p7(p6))
    assert not torch.equal(p7, block.p7(p6.relu()))


def test_widths() -> None:
    """Every stage has twice the channels of the one before it."""
    for depth, options, want in (
        (50, {}, [256, 512, 1024, 2048]),
        (18, {}, [64, 128, 256, 512]),
        (18, {"res2_channels": 8, "stem_channels": 4}, [8, 16, 32, 64]),
        (50, {"res2_channels": 32}, [32, 64, 128, 256]),
    ):
        with torch.device("meta"):
            model = build_resnet(depth, out_features=["res2", "res3", "res4", "res5"], **options)
            shapes = model.output_shape()
            outputs = model(torch.empty(1, 3, 64, 64))
        assert [s.channels for s in shapes.values()] == want
        assert [x.shape[1] for x in outputs.values()] == want
        assert [s.stride for s in shapes.values()] == [4, 8, 16, 32]
        assert [x.shape[-1] for x in outputs.values()] == [16, 8, 4, 2]


def test_width_of_the_bottlenecks_and_groups() -> None:
    with torch.device("meta"):
        model = build_resnet(50, num_groups=32, width_per_group=4)
    assert model.res2[0].conv2.weight.shape == (128, 4, 3, 3)
    assert model.res5[0].conv2.weight.shape == (1024, 32, 3, 3)


@pytest.mark.parametrize(("in_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_position_of_the_stride(in_1x1: bool, strides: tuple[int, int]) -> None:
    block = small(stride_in_1x1=in_1x1).res3[0]
    assert (block.conv1.stride[0], block.conv2.stride[0]) == strides


@pytest.mark.parametrize(("version", "kind"), [(1, DeformConvPack), (2, ModulatedDeformConvPack)])
def test_deformable_stages(version: int, kind: type) -> None:
    torch.manual_seed(0)
    model = small(deform_stages=[3, 5], deform_version=version)
    deformable = {k for k, m in model.named_modules() if isinstance(m, DeformConvPack)}
    stages = {"res3": 4, "res5": 3}
    assert deformable == {f"{k}.{i}.conv2" for k, n in stages.items() for i in range(n)}
    assert all(type(model.get_submodule(k)) is kind for k in deformable)
    outputs = model(torch.randn(1, 3, 64, 64))
    assert [x.shape[-1] for x in outputs.values()] == [8, 4, 2]
    sum(x.square().sum() for x in outputs.values()).backward()
    for name in deformable:
        layer = model.get_submodule(name)
        assert layer.weight.grad.any(), name
        assert layer.conv_offset.weight.grad.any(), name
        assert layer.norm.weight.grad.any(), name


@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("deform_stages", [(), (5,)])
def test_dilated_last_stage(stride_in_1x1: bool, deform_stages: tuple[int, ...]) -> None:
    """DC5 as Detectron2 builds it: dilation in every 3x3 convolution of res5, stride 16."""
    options = {"stride_in_1x1": stride_in_1x1, "deform_stages": deform_stages}
    model = small(res5_dilation=2, out_features=["res4", "res5"], **options)
    assert {b.conv2.dilation for b in model.res5} == {(2, 2)}
    assert {b.conv2.padding for b in model.res5} == {(2, 2)}
    assert {m.dilation for b in model.res4 for m in b.children()} == {(1, 1)}
    if deform_stages:
        assert {b.conv2.conv_offset.dilation for b in model.res5} == {(2, 2)}
    assert [s.stride for s in model.output_shape().values()] == [16, 16]
    outputs = model(torch.randn(1, 3, 64, 64))
    assert [x.shape[-1] for x in outputs.values()] == [4, 4]
    plain = {k: v.shape for k, v in small(**options).state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == plain  # same weights fit


def test_dilated_stage_is_detectron2s() -> None:
    """The same weights give what Detectron2's own R-50-DC5 gives."""
    cfg = get_cfg()
    cfg.MODEL.RESNETS.update(
        DEPTH=50, RES5_DILATION=2, OUT_FEATURES=["res5"], STEM_OUT_CHANNELS=8, WIDTH_PER_GROUP=8
    )
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    ours = small(norm="FrozenBN", stride_in_1x1=True, res5_dilation=2, out_features=["res5"])
    ours.eval().load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        got, want = ours(x)["res5"], theirs(x)["res5"]
    assert got.shape == (1, 128, 4, 6)
    assert torch.equal(got, want)


def test_one_set_of_offsets_for_all_groups() -> None:
    """ResNeXt with DCN: grouped weights; offsets from all channels, for all channels."""
    with torch.device("meta"):
        model = build_resnet(50, num_groups=32, width_per_group=4, deform_stages=[3, 4, 5])
    for stage, width in (("res3", 256), ("res4", 512), ("res5", 1024)):
        conv = getattr(model, stage)[0].conv2
        assert conv.weight.shape == (width, width // 32, 3, 3)
        assert conv.conv_offset.weight.shape == (27, width, 3, 3)
        assert (conv.groups, conv.deform_groups) == (32, 1)


def test_undeformed_dcn_is_the_plain_block() -> None:
    """Offsets begin at zero, so weights of a plain ResNet mean the same (v2 begins at half)."""
    plain, deformable = small(), small(deform_stages=[3], deform_version=1)
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {k.split(".")[-2] for k in missing} == {"conv_offset"}
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        got, want = deformable.double()(x), plain.double()(x)
    for name in want:
        torch.testing.assert_close(got[name], want[name])


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depth must be one of \[18, 34, 50, 101, 152\], got 20"):
        build_resnet(20)
    with pytest.raises(ValueError, match="need bottleneck blocks"):
        build_resnet(18, deform_stages=[5])
    with pytest.raises(ValueError, match="res5_dilation must be 1 or 2, got 4"):
        build_resnet(50, res5_dilation=4)
    with pytest.raises(ValueError, match="res5_dilation needs bottleneck blocks"):
        build_resnet(18, res5_dilation=2)
