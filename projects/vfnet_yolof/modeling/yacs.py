"""Yacs keys of the meta-architectures, for ``DefaultTrainer`` and other people's tools.

What stands in Detectron2's META_ARCH_REGISTRY takes a config with these keys, or the keyword
arguments of the class.
"""

from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_anchor_generator

from .assigners import UniformAssigner
from .boxes import ClampedDeltaCoder
from .heads import AnchorHead, GFLHead, VFNetHead
from .losses import FocalLoss, QualityFocalLoss
from .meta_arch import ATSS, GFL, YOLOF, GFocal, VFNet
from .points import PixelIndexPoints
from .representations import AnchorDeltas, DiracDelta, GeneralDistribution
from .yacs_common import (
    add_cls_loss_keys,
    add_common_keys,
    add_point_keys,
    add_recipe_keys,
    choose,
    cls_loss,
    common_arguments,
    point_arguments,
    register,
)
from .yacs_peers import add_peer_configs


def add_vfnet_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.VFNET`` with the paper's values to ``cfg``."""
    node = CfgNode()
    add_point_keys(node)
    add_cls_loss_keys(node)
    node.NUM_CONVS = 3
    node.REG_DENOM = [64.0, 128.0, 256.0, 512.0, 1024.0]
    node.REFINE = True
    node.CLS_LOSS = "VFL"  # or "FL", "QFL"
    node.BOX_INIT_WEIGHT = 1.5
    cfg.MODEL.VFNET = node
    add_recipe_keys(cfg)


def add_atss_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.ATSS``, FCOS+ATSS with centerness, to ``cfg``."""
    node = CfgNode()
    add_point_keys(node)
    add_cls_loss_keys(node)
    node.NUM_CONVS = 4
    node.CLS_LOSS = "FL"  # or "QFL", "VFL"
    node.BOXES = "distances"  # or "anchor_deltas", as published
    node.CENTERNESS_WEIGHT = 1.0
    node.MIN_CENTERNESS_SUM = 1e-12  # 1.0 in MMDetection 3.3
    cfg.MODEL.ATSS = node
    add_recipe_keys(cfg)


def add_gfl_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.GFL`` with the paper's values to ``cfg``."""
    node = CfgNode()
    add_point_keys(node)
    node.NUM_CONVS = 4
    node.QFL_BETA = 2.0
    node.REG_MAX = 16
    node.BIN_INTERVAL = 1.0  # in strides; the last bin is at REG_MAX * BIN_INTERVAL
    node.DFL_WEIGHT = 0.25
    cfg.MODEL.GFL = node
    add_recipe_keys(cfg)


def add_yolof_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.YOLOF`` with the paper's values to ``cfg``.

    Anchors are those of ``MODEL.ANCHOR_GENERATOR``, and the dilation of the last stage is
    ``MODEL.RESNETS.RES5_DILATION``.
    """
    node = CfgNode()
    add_common_keys(node)
    node.CLIP = "after_nms"
    node.CENTER_CLAMP = 32.0  # pixels; 0 for none
    node.BOX_WEIGHT = 1.0
    node.FOCAL_ALPHA = 0.25
    node.FOCAL_GAMMA = 2.0
    node.ENCODER = CfgNode()
    node.ENCODER.IN_FEATURE = "res5"
    node.ENCODER.CHANNELS = 512
    node.ENCODER.MID_CHANNELS = 128
    node.ENCODER.DILATIONS = [2, 4, 6, 8]
    node.ENCODER.SHORTCUT = True
    node.ENCODER.NORM = "BN"
    node.ENCODER.ACTIVATION = "ReLU"  # or "LeakyReLU"
    node.DECODER = CfgNode()
    node.DECODER.CONV_CHANNELS = 512
    node.DECODER.NUM_CLS_CONVS = 2
    node.DECODER.NUM_REG_CONVS = 4
    node.DECODER.NORM = "BN"
    node.DECODER.ACTIVATION = "ReLU"  # or "LeakyReLU"
    node.DECODER.IMPLICIT_OBJECTNESS = True
    node.MATCHER = CfgNode()
    node.MATCHER.TOPK = 4
    node.MATCHER.MIN_IOU = 0.15
    node.MATCHER.MAX_IOU = 0.7
    cfg.MODEL.YOLOF = node
    add_recipe_keys(cfg)


def add_backbone_config(cfg: CfgNode) -> None:
    """Add the keys of backbones that Detectron2 does not have to ``cfg``.

    ``MODEL.BACKBONE.FREEZE_AT`` counts for them, too. A Res2Net takes its depth, norm, deformable
    stages and features from ``MODEL.RESNETS``.
    """
    cfg.MODEL.RES2NET = CfgNode()
    cfg.MODEL.RES2NET.BASE_WIDTH = 26
    cfg.MODEL.RES2NET.SCALES = 4
    cfg.MODEL.DARKNET = CfgNode()
    cfg.MODEL.DARKNET.DEPTH = 53
    cfg.MODEL.DARKNET.NORM = "BN"
    cfg.MODEL.DARKNET.ACTIVATION = "Mish"  # or "LeakyReLU"
    cfg.MODEL.DARKNET.RES5_DILATION = 1
    cfg.MODEL.DARKNET.STEM_OUT_CHANNELS = 32
    cfg.MODEL.DARKNET.OUT_FEATURES = ["res5"]


def add_keys(cfg: CfgNode) -> None:
    """Add all keys of this project to ``cfg``."""
    add_vfnet_config(cfg)
    add_atss_config(cfg)
    add_gfl_config(cfg)
    add_yolof_config(cfg)
    add_peer_configs(cfg)
    add_backbone_config(cfg)


def get_cfg_with_keys() -> CfgNode:
    """Detectron2's default config with this project's keys."""
    cfg = get_cfg()
    add_keys(cfg)
    return cfg


def vfnet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`VFNet` from a config with its keys.

    Raises:
        KeyError: ``ASSIGNER``, ``CLS_LOSS`` or ``NMS_KIND`` is not one of the known names.
    """
    node = cfg.MODEL.VFNET
    arguments, head = point_arguments(cfg, "VFNET")
    arguments["head"] = VFNetHead(**head, reg_denom=node.REG_DENOM, refine=node.REFINE)
    arguments["cls_loss"] = cls_loss("VFNET", node)
    arguments["box_init_weight"] = node.BOX_INIT_WEIGHT
    return arguments


def atss_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`ATSS`; errors as of :func:`vfnet_arguments`."""
    arguments, head = point_arguments(cfg, "ATSS")
    representation = choose(
        "MODEL.ATSS.BOXES",
        cfg.MODEL.ATSS.BOXES,
        distances=DiracDelta,
        anchor_deltas=lambda: AnchorDeltas(cfg.MODEL.ATSS.OCTAVE_BASE_SCALE),
    )
    arguments["head"] = GFLHead(**head, representation=representation, quality=True)
    arguments["cls_loss"] = cls_loss("ATSS", cfg.MODEL.ATSS)
    arguments["centerness_weight"] = cfg.MODEL.ATSS.CENTERNESS_WEIGHT
    arguments["min_centerness_sum"] = cfg.MODEL.ATSS.MIN_CENTERNESS_SUM
    return arguments


def gfl_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`GFL`.

    Raises:
        KeyError: ``ASSIGNER`` or ``NMS_KIND`` is not one of the known names.
    """
    node = cfg.MODEL.GFL
    arguments, head = point_arguments(cfg, "GFL")
    representation = GeneralDistribution(node.REG_MAX, node.BIN_INTERVAL)
    arguments["head"] = GFLHead(**head, representation=representation)
    arguments["cls_loss"] = QualityFocalLoss(node.QFL_BETA)
    arguments["dfl_weight"] = node.DFL_WEIGHT
    return arguments


def gfocal_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`GFocal`; keys and errors as of :func:`gfl_arguments`."""
    arguments = gfl_arguments(cfg)
    points = arguments["points"]
    return arguments | {"points": PixelIndexPoints(points.strides, points.octave_base_scale)}


def yolof_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`YOLOF`.

    Raises:
        ValueError: the anchor generator has other numbers of anchors on its levels.
    """
    node = cfg.MODEL.YOLOF
    arguments = common_arguments(cfg, "YOLOF")
    shapes = list(arguments["backbone"].output_shape().values())
    anchor_generator = build_anchor_generator(cfg, shapes)
    arguments["anchor_generator"] = anchor_generator
    arguments["head"] = AnchorHead(
        in_channels=shapes[0].channels,
        num_classes=node.NUM_CLASSES,
        num_anchors=anchor_generator.num_anchors[0],
        conv_channels=node.DECODER.CONV_CHANNELS,
        num_cls_convs=node.DECODER.NUM_CLS_CONVS,
        num_reg_convs=node.DECODER.NUM_REG_CONVS,
        norm=node.DECODER.NORM,
        activation=node.DECODER.ACTIVATION,
        implicit_objectness=node.DECODER.IMPLICIT_OBJECTNESS,
        prior_prob=node.PRIOR_PROB,
    )
    arguments["box_coder"] = ClampedDeltaCoder(node.CENTER_CLAMP or None)
    arguments["assigner"] = UniformAssigner(
        node.MATCHER.TOPK, node.MATCHER.MIN_IOU, node.MATCHER.MAX_IOU
    )
    arguments["cls_loss"] = FocalLoss(node.FOCAL_ALPHA, node.FOCAL_GAMMA)
    return arguments


for _detector, _arguments in (
    (ATSS, atss_arguments),
    (GFL, gfl_arguments),
    (GFocal, gfocal_arguments),
    (VFNet, vfnet_arguments),
    (YOLOF, yolof_arguments),
):
    register(_detector, _arguments)
