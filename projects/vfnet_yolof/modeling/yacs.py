"""Yacs keys of the meta-architectures, for ``DefaultTrainer`` and other people's tools.

What stands in Detectron2's META_ARCH_REGISTRY takes a config with these keys, or the keyword
arguments of the class.
"""

import functools
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_anchor_generator, build_backbone

from ..layers.nms import NMS, HardNMS
from ..layers.soft_nms import SoftNMS
from .assigners import ATSSAssigner, FCOSAssigner, UniformAssigner
from .boxes import ClampedDeltaCoder
from .heads import AnchorHead, GFLHead, VFNetHead
from .losses import FocalLoss, QualityFocalLoss, VarifocalLoss
from .meta_arch import ATSS, GFL, YOLOF, GFocal, VFNet
from .points import PixelIndexPoints, PointGenerator
from .postprocess import PostProcessor
from .representations import DiracDelta, GeneralDistribution

_NODES = ("ATSS", "DARKNET", "GFL", "RES2NET", "VFNET", "YOLOF")  # below MODEL, that are ours


def _add_common_keys(node: CfgNode) -> None:
    """Keys of every detector."""
    node.NUM_CLASSES = 80
    node.PRIOR_PROB = 0.01
    node.SCORE_THRESH_TEST = 0.05
    node.TOPK_CANDIDATES_TEST = 1000
    node.NMS_KIND = "hard"  # or "soft_linear", "soft_gaussian"
    node.NMS_THRESH_TEST = 0.6  # of "hard" and "soft_linear"
    node.SOFT_NMS_SIGMA = 0.5
    node.SOFT_NMS_MIN_SCORE = 1e-3
    node.CLASS_AGNOSTIC_NMS = False
    node.CANDIDATES = "pair"  # or "location"
    node.CLIP = "before_nms"  # or "after_nms"


def _add_point_keys(node: CfgNode) -> None:
    """Keys of every detector with one box for each location."""
    _add_common_keys(node)
    node.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    node.CONV_CHANNELS = 256
    node.NORM = "GN"
    node.DCN_ON_LAST_CONV = False
    # In strides, from the corner of the cell; None: where ASSIGNER wants it, 0.0 or 0.5.
    node.POINT_OFFSET = None
    node.OCTAVE_BASE_SCALE = 8.0
    node.ASSIGNER = "ATSS"  # or "FCOS", with centre sampling
    node.ATSS_TOPK = 9
    node.BOX_WEIGHT = 2.0


def _add_cls_loss_keys(node: CfgNode) -> None:
    """Keys of the losses that VFNet's tables compare."""
    node.VFL_ALPHA = 0.75
    node.VFL_GAMMA = 2.0
    node.VFL_IOU_WEIGHTED = True
    node.VFL_PADDING_IS_NEGATIVE = True
    node.FOCAL_ALPHA = 0.25
    node.FOCAL_GAMMA = 2.0


def _add_recipe_keys(cfg: CfgNode) -> None:
    """Keys of recipes, the same for every detector; this project's ``train_net.py`` reads them."""
    # The batch that BASE_LR and MAX_ITER are meant for; `--auto-scale` goes by it.
    cfg.SOLVER.REFERENCE_BATCH_SIZE = 16
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0  # factor on the learning rate below backbone.bottom_up
    cfg.INPUT.INTERPOLATION = "pil"  # or "opencv": how images are resized
    cfg.INPUT.RANDOM_SHIFT = CfgNode()
    cfg.INPUT.RANDOM_SHIFT.MAX_SHIFT = 0  # pixels; 0 for no shift
    cfg.INPUT.RANDOM_SHIFT.PROB = 0.5


def add_vfnet_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.VFNET`` with the paper's values to ``cfg``."""
    node = CfgNode()
    _add_point_keys(node)
    _add_cls_loss_keys(node)
    node.NUM_CONVS = 3
    node.REG_DENOM = [64.0, 128.0, 256.0, 512.0, 1024.0]
    node.REFINE = True
    node.CLS_LOSS = "VFL"  # or "FL"
    node.BOX_INIT_WEIGHT = 1.5
    cfg.MODEL.VFNET = node
    _add_recipe_keys(cfg)


def add_atss_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.ATSS``, FCOS+ATSS with centerness, to ``cfg``."""
    node = CfgNode()
    _add_point_keys(node)
    _add_cls_loss_keys(node)
    node.NUM_CONVS = 4
    node.CLS_LOSS = "FL"  # or "VFL"
    node.CENTERNESS_WEIGHT = 1.0
    node.MIN_CENTERNESS_SUM = 1e-12  # 1.0 in MMDetection 3.3
    cfg.MODEL.ATSS = node
    _add_recipe_keys(cfg)


def add_gfl_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.GFL`` with the paper's values to ``cfg``."""
    node = CfgNode()
    _add_point_keys(node)
    node.NUM_CONVS = 4
    node.QFL_BETA = 2.0
    node.REG_MAX = 16
    node.BIN_INTERVAL = 1.0  # in strides; the last bin is at REG_MAX * BIN_INTERVAL
    node.DFL_WEIGHT = 0.25
    cfg.MODEL.GFL = node
    _add_recipe_keys(cfg)


def add_yolof_config(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.YOLOF`` with the paper's values to ``cfg``.

    Anchors are those of ``MODEL.ANCHOR_GENERATOR``, and the dilation of the last stage is
    ``MODEL.RESNETS.RES5_DILATION``.
    """
    node = CfgNode()
    _add_common_keys(node)
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
    _add_recipe_keys(cfg)


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
    arguments, head = _point_arguments(cfg, "VFNET")
    arguments["head"] = VFNetHead(**head, reg_denom=node.REG_DENOM, refine=node.REFINE)
    arguments["cls_loss"] = _varifocal_or_focal("VFNET", node)
    arguments["box_init_weight"] = node.BOX_INIT_WEIGHT
    return arguments


def atss_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`ATSS`; errors as of :func:`vfnet_arguments`."""
    arguments, head = _point_arguments(cfg, "ATSS")
    arguments["head"] = GFLHead(**head, representation=DiracDelta(), quality=True)
    arguments["cls_loss"] = _varifocal_or_focal("ATSS", cfg.MODEL.ATSS)
    arguments["centerness_weight"] = cfg.MODEL.ATSS.CENTERNESS_WEIGHT
    arguments["min_centerness_sum"] = cfg.MODEL.ATSS.MIN_CENTERNESS_SUM
    return arguments


def gfl_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`GFL`.

    Raises:
        KeyError: ``ASSIGNER`` or ``NMS_KIND`` is not one of the known names.
    """
    node = cfg.MODEL.GFL
    arguments, head = _point_arguments(cfg, "GFL")
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
    arguments = _common_arguments(cfg, "YOLOF")
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


def _common_arguments(cfg: CfgNode, name: str) -> dict[str, Any]:
    """Arguments that all detectors take."""
    node = cfg.MODEL[name]
    return {
        "backbone": build_backbone(cfg),
        "box_weight": node.BOX_WEIGHT,
        "postprocessor": PostProcessor(
            score_thresh=node.SCORE_THRESH_TEST,
            topk_candidates=node.TOPK_CANDIDATES_TEST,
            nms=_nms(name, node),
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            candidates=node.CANDIDATES,
            clip=node.CLIP,
        ),
        "num_classes": node.NUM_CLASSES,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "input_format": cfg.INPUT.FORMAT,
    }


def _point_arguments(cfg: CfgNode, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that detectors with one box for each location take, and those of their heads."""
    node = cfg.MODEL[name]
    arguments = _common_arguments(cfg, name)
    shapes = arguments["backbone"].output_shape()
    strides = [shapes[feature].stride for feature in node.IN_FEATURES]
    assigner = _choose(
        f"MODEL.{name}.ASSIGNER",
        node.ASSIGNER,
        ATSS=lambda: ATSSAssigner(node.ATSS_TOPK),
        FCOS=lambda: FCOSAssigner(strides=strides, center_radius=FCOSAssigner.usual_radius),
    )
    offset = assigner.point_offset if node.POINT_OFFSET is None else node.POINT_OFFSET
    arguments["assigner"] = assigner
    arguments["points"] = PointGenerator(strides, offset, node.OCTAVE_BASE_SCALE)
    arguments["head_in_features"] = node.IN_FEATURES
    head = {
        "in_channels": shapes[node.IN_FEATURES[0]].channels,
        "num_classes": node.NUM_CLASSES,
        "conv_channels": node.CONV_CHANNELS,
        "num_convs": node.NUM_CONVS,
        "strides": strides,
        "norm": node.NORM,
        "dcn_on_last_conv": node.DCN_ON_LAST_CONV,
        "prior_prob": node.PRIOR_PROB,
    }
    return arguments, head


def _nms(name: str, node: CfgNode) -> NMS:
    def soft(method: str) -> SoftNMS:
        return SoftNMS(
            method,
            node.NMS_THRESH_TEST,
            node.SOFT_NMS_SIGMA,
            node.SOFT_NMS_MIN_SCORE,
            node.CLASS_AGNOSTIC_NMS,
        )

    return _choose(
        f"MODEL.{name}.NMS_KIND",
        node.NMS_KIND,
        hard=lambda: HardNMS(node.NMS_THRESH_TEST, node.CLASS_AGNOSTIC_NMS),
        soft_linear=lambda: soft("linear"),
        soft_gaussian=lambda: soft("gaussian"),
    )


def _varifocal_or_focal(name: str, node: CfgNode) -> VarifocalLoss | FocalLoss:
    return _choose(
        f"MODEL.{name}.CLS_LOSS",
        node.CLS_LOSS,
        VFL=lambda: VarifocalLoss(
            node.VFL_ALPHA, node.VFL_GAMMA, node.VFL_IOU_WEIGHTED, node.VFL_PADDING_IS_NEGATIVE
        ),
        FL=lambda: FocalLoss(node.FOCAL_ALPHA, node.FOCAL_GAMMA),
    )


def _choose(key: str, name: str, **choices: Any) -> Any:
    if name not in choices:
        raise KeyError(f"{key} must be one of {sorted(choices)}, got {name!r}")
    return choices[name]()


def _register(detector: Callable[..., Any], arguments: Callable[..., dict[str, Any]]) -> None:
    def build(**keywords: Any) -> Any:
        return detector(**keywords)

    build.__name__ = build.__qualname__ = detector.__name__
    build.__doc__ = detector.__doc__

    @functools.wraps(arguments)
    def from_config(cfg: CfgNode) -> dict[str, Any]:
        try:
            return arguments(cfg)
        except AttributeError as error:
            if error.args[:1] not in [(node,) for node in _NODES]:
                raise
            raise ValueError(
                f"The config has no MODEL.{error.args[0]}: make it with vfnet_yolof.modeling.yacs."
                "get_cfg_with_keys(), which has this project's keys, instead of get_cfg()."
            ) from error

    META_ARCH_REGISTRY.register(configurable(from_config=from_config)(build))


for _detector, _arguments in (
    (ATSS, atss_arguments),
    (GFL, gfl_arguments),
    (GFocal, gfocal_arguments),
    (VFNet, vfnet_arguments),
    (YOLOF, yolof_arguments),
):
    _register(_detector, _arguments)
