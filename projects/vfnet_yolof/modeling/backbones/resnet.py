"""ResNets built from Detectron2's blocks, with what the references' recipes need of them."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import nn

from ...layers.deform_conv import DeformConvPack, ModulatedDeformConvPack
from .norms import norm_factory
from .top_block import LastLevelP6P7NoReLU

NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEFORM_CONVS = {1: DeformConvPack, 2: ModulatedDeformConvPack}


class DeformBottleneckBlock(BottleneckBlock):
    """Bottleneck block whose 3x3 convolution is deformable, on CPU and CUDA."""

    conv2: Any  # the base class makes a plain one

    def __init__(self, *args: Any, deform_version: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain = self.conv2
        self.conv2 = DEFORM_CONVS[deform_version](
            plain.in_channels,
            plain.out_channels,
            kernel_size=3,
            stride=plain.stride,
            padding=plain.padding,
            dilation=plain.dilation,
            groups=plain.groups,
            bias=False,
        )
        self.conv2.norm = plain.norm
        nn.init.kaiming_normal_(self.conv2.weight, mode="fan_out", nonlinearity="relu")


def build_resnet(
    depth: int = 50,
    *,
    norm: str = "StaticBN",
    freeze_at: int = 2,
    stride_in_1x1: bool = False,
    num_groups: int = 1,
    width_per_group: int = 64,
    stem_channels: int = 64,
    res2_channels: int | None = None,
    deform_stages: Sequence[int] = (),
    deform_version: int = 2,
    res5_dilation: int = 1,
    in_channels: int = 3,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
) -> ResNet:
    """ResNet or ResNeXt, of ordinary or reduced width.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: as of :func:`~.norms.norm_factory`, e.g. ``"StaticBN"`` or ``"FrozenBN"``.
        freeze_at: 1 freezes the stem, 2 the stem and the first stage, and so on.
        stride_in_1x1: stride in the first 1x1 convolution (MSRA) or the 3x3 one (torchvision).
        num_groups, width_per_group: 1 x 64 is ResNet, 32 x 4 and 64 x 4 are ResNeXt.
        stem_channels, res2_channels: widths; the first stage has 256 channels (64 with depth
            18 and 34) by default, and every stage doubles them.
        deform_stages: stages of 2..5 whose 3x3 convolutions are deformable.
        deform_version: 1 (DCN) or 2 (DCNv2, modulated).
        res5_dilation: 2 replaces the last stage's stride by a dilation of all its 3x3
            convolutions, so that its output has stride 16 (YOLOF's DC5).
        in_channels: channels of the images.
        out_features: stages to return, of ``stem``, ``res2`` ... ``res5``.

    Raises:
        ValueError: an unknown depth, or an option that the depth's blocks cannot have.
    """
    if depth not in NUM_BLOCKS:
        raise ValueError(f"depth must be one of {sorted(NUM_BLOCKS)}, got {depth}")
    if deform_stages and depth < 50:
        raise ValueError("deform_stages need bottleneck blocks, that is depth >= 50")
    if res5_dilation not in (1, 2):
        raise ValueError(f"res5_dilation must be 1 or 2, got {res5_dilation}")
    if res5_dilation > 1 and depth < 50:
        raise ValueError("res5_dilation needs bottleneck blocks, that is depth >= 50")
    norm_layer = norm_factory(norm)
    bottleneck_channels = num_groups * width_per_group
    out_channels = res2_channels or (256 if depth >= 50 else 64)
    channels = stem_channels
    stages = []
    for stage, num_blocks in enumerate(NUM_BLOCKS[depth], start=2):
        dilation = res5_dilation if stage == 5 else 1
        first_stride = 1 if stage == 2 or dilation > 1 else 2
        kwargs: dict[str, Any] = {
            "stride_per_block": [first_stride] + [1] * (num_blocks - 1),
            "in_channels": channels,
            "out_channels": out_channels,
            "norm": norm_layer,
        }
        block: type = BasicBlock
        if depth >= 50:
            block = BottleneckBlock
            kwargs["bottleneck_channels"] = bottleneck_channels
            kwargs["stride_in_1x1"] = stride_in_1x1
            kwargs["num_groups"] = num_groups
            kwargs["dilation"] = dilation
        if stage in deform_stages:
            block = DeformBottleneckBlock
            kwargs["deform_version"] = deform_version
        stages.append(ResNet.make_stage(block, num_blocks, **kwargs))
        channels, out_channels = out_channels, out_channels * 2
        bottleneck_channels *= 2
    stem = BasicStem(in_channels=in_channels, out_channels=stem_channels, norm=norm_layer)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)


def resnet_from_keys(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """:func:`build_resnet` with Detectron2's yacs keys, ``MODEL.RESNETS``."""
    keys = cfg.MODEL.RESNETS
    return build_resnet(
        keys.DEPTH,
        norm=keys.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        stride_in_1x1=keys.STRIDE_IN_1X1,
        num_groups=keys.NUM_GROUPS,
        width_per_group=keys.WIDTH_PER_GROUP,
        stem_channels=keys.STEM_OUT_CHANNELS,
        res2_channels=keys.RES2_OUT_CHANNELS,
        **deform_keys(cfg),
        res5_dilation=keys.RES5_DILATION,
        in_channels=input_shape.channels,
        out_features=keys.OUT_FEATURES,
    )


def deform_keys(cfg: CfgNode) -> dict[str, Any]:
    """Stages and version of deformable convolutions by Detectron2's yacs keys."""
    keys = cfg.MODEL.RESNETS
    return {
        "deform_stages": [i for i, on in enumerate(keys.DEFORM_ON_PER_STAGE, start=2) if on],
        "deform_version": 2 if keys.DEFORM_MODULATED else 1,
    }


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet and FPN P3-P7 from yacs keys, P6 and P7 from P5 as in the VFNet reference."""
    return fpn_from_keys(cfg, resnet_from_keys(cfg, input_shape), LastLevelP6P7)


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_resnet_fpn_no_relu_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The same without the ReLU between P6 and P7, as in the GFL reference."""
    return fpn_from_keys(cfg, resnet_from_keys(cfg, input_shape), LastLevelP6P7NoReLU)


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_resnet_fpn_c5_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The same with P6 from C5, and ``MODEL.FPN.NORM`` on P6 and P7, too: RetinaNet's, FoveaBox's
    and RepPoints' in MMDetection."""
    bottom_up = resnet_from_keys(cfg, input_shape)
    pyramid = fpn_from_keys(cfg, bottom_up, LastLevelP6P7NoReLU)
    pyramid.top_block = LastLevelP6P7NoReLU(
        bottom_up.output_shape()["res5"].channels,
        cfg.MODEL.FPN.OUT_CHANNELS,
        in_feature="res5",
        norm=cfg.MODEL.FPN.NORM,
    )
    return pyramid


def fpn_from_keys(cfg: CfgNode, bottom_up: Backbone, top_block: type[LastLevelP6P7]) -> FPN:
    """FPN with Detectron2's yacs keys, ``MODEL.FPN``; ``top_block`` reads its P5."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block(channels, channels, in_feature="p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
