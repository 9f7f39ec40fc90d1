"""Yacs keys and constructor arguments that several detectors share; see :mod:`.yacs`."""

import functools
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone

from ..layers.nms import NMS, HardNMS
from ..layers.soft_nms import SoftNMS
from .assigners import ATSSAssigner, FCOSAssigner
from .losses import ClassificationLoss, FocalLoss, QualityFocalLoss, VarifocalLoss
from .points import PointGenerator
from .postprocess import PostProcessor

# Below MODEL, that are ours.
_NODES = (
    *("ATSS", "DARKNET", "FOVEABOX", "GFL", "MMDET_RETINANET", "REPPOINTS", "RES2NET", "SSD"),
    *("VFNET", "YOLOF"),
)


def add_common_keys(node: CfgNode) -> None:
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


def add_point_keys(node: CfgNode) -> None:
    """Keys of every detector with one box for each location."""
    add_common_keys(node)
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


def add_cls_loss_keys(node: CfgNode) -> None:
    """Keys of the losses that VFNet's tables compare."""
    node.VFL_ALPHA = 0.75
    node.VFL_GAMMA = 2.0
    node.VFL_IOU_WEIGHTED = True
    node.VFL_PADDING_IS_NEGATIVE = True
    node.VFL_MIN_IOU = 1e-6
    node.QFL_BETA = 2.0
    node.FOCAL_ALPHA = 0.25
    node.FOCAL_GAMMA = 2.0


def add_recipe_keys(cfg: CfgNode) -> None:
    """Keys of recipes, the same for every detector; this project's ``train_net.py`` reads them."""
    # The batch that BASE_LR and MAX_ITER are meant for; `--auto-scale` goes by it.
    cfg.SOLVER.REFERENCE_BATCH_SIZE = 16
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0  # factor on the learning rate below backbone.bottom_up
    cfg.INPUT.INTERPOLATION = "pil"  # or "opencv": how images are resized
    cfg.INPUT.RANDOM_SHIFT = CfgNode()
    cfg.INPUT.RANDOM_SHIFT.MAX_SHIFT = 0  # pixels; 0 for no shift
    cfg.INPUT.RANDOM_SHIFT.PROB = 0.5


def common_arguments(cfg: CfgNode, name: str) -> dict[str, Any]:
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


def point_arguments(cfg: CfgNode, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that detectors with one box for each location take, and those of their heads."""
    node = cfg.MODEL[name]
    arguments = common_arguments(cfg, name)
    shapes = arguments["backbone"].output_shape()
    strides = [shapes[feature].stride for feature in node.IN_FEATURES]
    assigner = choose(
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

    return choose(
        f"MODEL.{name}.NMS_KIND",
        node.NMS_KIND,
        hard=lambda: HardNMS(node.NMS_THRESH_TEST, node.CLASS_AGNOSTIC_NMS),
        soft_linear=lambda: soft("linear"),
        soft_gaussian=lambda: soft("gaussian"),
    )


def cls_loss(name: str, node: CfgNode) -> ClassificationLoss:
    """The loss that ``CLS_LOSS`` names: "FL", "QFL" or "VFL"."""
    return choose(
        f"MODEL.{name}.CLS_LOSS",
        node.CLS_LOSS,
        VFL=lambda: VarifocalLoss(
            node.VFL_ALPHA,
            node.VFL_GAMMA,
            node.VFL_IOU_WEIGHTED,
            node.VFL_PADDING_IS_NEGATIVE,
            node.VFL_MIN_IOU,
        ),
        QFL=lambda: QualityFocalLoss(node.QFL_BETA),
        FL=lambda: FocalLoss(node.FOCAL_ALPHA, node.FOCAL_GAMMA),
    )


def choose(key: str, name: str, **choices: Any) -> Any:
    """What the choice of this name makes; KeyError names the others."""
    if name not in choices:
        raise KeyError(f"{key} must be one of {sorted(choices)}, got {name!r}")
    return choices[name]()


def register(
    detector: Callable[..., Any], arguments: Callable[..., dict[str, Any]], name: str = ""
) -> None:
    """Let Detectron2 build ``detector`` from a config, as ``name`` or by its own name."""

    def build(**keywords: Any) -> Any:
        return detector(**keywords)

    build.__name__ = build.__qualname__ = name or detector.__name__
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
