"""Yacs keys of the detectors that the papers compare with, as MMDetection has them.

Detectron2 has a ``RetinaNet`` of its own in the registry; the one here is ``MMDetRetinaNet``.
"""

from typing import Any

from detectron2.config import CfgNode

from .anchors import CellAnchors, OctaveAnchors, SSDAnchors
from .assigners import FoveaAssigner, MMDetMaxIoUAssigner, NearestPointAssigner
from .boxes import SCALE_CLAMP, ClampedDeltaCoder
from .heads import AnchorHead, GFLHead, RepPointsHead, SSDHead
from .losses import MinedCrossEntropy, SmoothL1BoxLoss
from .meta_arch import AnchorDetector, FoveaBox, RepPoints
from .points import PointGenerator
from .representations import DiracDelta
from .yacs_common import (
    add_cls_loss_keys,
    add_common_keys,
    add_recipe_keys,
    cls_loss,
    common_arguments,
    register,
)


def _add_peer_keys(node: CfgNode) -> None:
    """Keys of RetinaNet, FoveaBox and RepPoints."""
    add_common_keys(node)
    add_cls_loss_keys(node)
    node.CLS_LOSS = "FL"  # or "QFL", "VFL"
    node.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    node.CONV_CHANNELS = 256
    node.NUM_CONVS = 4
    node.NORM = ""
    node.BOX_WEIGHT = 1.0
    node.SMOOTH_L1_BETA = 0.11
    node.NMS_THRESH_TEST = 0.5


def add_peer_configs(cfg: CfgNode) -> None:
    """Add the keys below ``MODEL.MMDET_RETINANET``, ``FOVEABOX``, ``REPPOINTS`` and ``SSD``."""
    retinanet, foveabox, reppoints, ssd = CfgNode(), CfgNode(), CfgNode(), CfgNode()
    for node in (retinanet, foveabox, reppoints):
        _add_peer_keys(node)
    retinanet.SMOOTH_L1_BETA = 0.0
    # With these two the authors' varifocal loss leaves the padding out.
    for node in (retinanet, reppoints):
        node.VFL_PADDING_IS_NEGATIVE = False
        node.VFL_MIN_IOU = 0.0
    foveabox.FOCAL_ALPHA, foveabox.FOCAL_GAMMA = 0.4, 1.5
    foveabox.SIGMA = 0.4
    reppoints.NUM_CONVS = 3
    reppoints.NORM = "GN"
    reppoints.BOX_INIT_WEIGHT = 0.5
    add_common_keys(ssd)
    add_cls_loss_keys(ssd)
    ssd.CLS_LOSS = "SOFTMAX"  # with mined negatives; or "FL", "QFL", "VFL" with sigmoids
    ssd.NEGATIVE_RATIO = 3.0
    ssd.SCORE_THRESH_TEST = 0.02
    ssd.NMS_THRESH_TEST = 0.45
    ssd.BOX_WEIGHT = 1.0
    ssd.SMOOTH_L1_BETA = 1.0
    cfg.MODEL.MMDET_RETINANET = retinanet
    cfg.MODEL.FOVEABOX = foveabox
    cfg.MODEL.REPPOINTS = reppoints
    cfg.MODEL.SSD = ssd
    add_recipe_keys(cfg)


def retinanet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`AnchorDetector`, as MMDetection's RetinaNet."""
    node = cfg.MODEL.MMDET_RETINANET
    arguments, head, strides = _peer_arguments(cfg, "MMDET_RETINANET")
    generator = OctaveAnchors(strides)
    del head["strides"]
    depth = head.pop("num_convs")
    arguments["head"] = AnchorHead(
        **head,
        num_anchors=generator.num_anchors[0],
        num_cls_convs=depth,
        num_reg_convs=depth,
        implicit_objectness=False,
    )
    assigner = MMDetMaxIoUAssigner()
    return arguments | _anchor_arguments(generator, assigner, node.SMOOTH_L1_BETA)


def foveabox_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`FoveaBox`."""
    node = cfg.MODEL.FOVEABOX
    arguments, head, strides = _peer_arguments(cfg, "FOVEABOX")
    arguments["head"] = GFLHead(**head, level_scales=False, representation=DiracDelta(2.0))
    arguments["points"] = PointGenerator(strides, FoveaAssigner.point_offset, 4.0)
    arguments["assigner"] = FoveaAssigner(strides, sigma=node.SIGMA)
    arguments["beta"] = node.SMOOTH_L1_BETA
    return arguments


def reppoints_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`RepPoints`."""
    node = cfg.MODEL.REPPOINTS
    arguments, head, strides = _peer_arguments(cfg, "REPPOINTS")
    arguments["head"] = RepPointsHead(**head)
    arguments["points"] = PointGenerator(strides, NearestPointAssigner.point_offset, 4.0)
    arguments["init_assigner"] = NearestPointAssigner(strides)
    arguments["assigner"] = MMDetMaxIoUAssigner()
    arguments["beta"] = node.SMOOTH_L1_BETA
    arguments["box_init_weight"] = node.BOX_INIT_WEIGHT
    return arguments


def ssd_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Constructor arguments of :class:`AnchorDetector`, as SSD512."""
    node = cfg.MODEL.SSD
    arguments = common_arguments(cfg, "SSD")
    shapes = arguments["backbone"].output_shape()
    generator = SSDAnchors([x.stride for x in shapes.values()])
    is_softmax = node.CLS_LOSS == "SOFTMAX"
    arguments["head"] = SSDHead(
        in_channels=[x.channels for x in shapes.values()],
        num_anchors=generator.num_anchors,
        num_classes=node.NUM_CLASSES,
        background=is_softmax,
        prior_prob=None if is_softmax else node.PRIOR_PROB,
    )
    arguments["cls_loss"] = (
        MinedCrossEntropy(node.NEGATIVE_RATIO) if is_softmax else cls_loss("SSD", node)
    )
    assigner = MMDetMaxIoUAssigner(0.5, 0.5, all_best=False)
    stds = (0.1, 0.1, 0.2, 0.2)
    return arguments | _anchor_arguments(generator, assigner, node.SMOOTH_L1_BETA, stds)


def _peer_arguments(cfg: CfgNode, name: str) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """Arguments of a detector on a pyramid and of its head, and the levels' strides."""
    node = cfg.MODEL[name]
    arguments = common_arguments(cfg, name)
    shapes = arguments["backbone"].output_shape()
    strides = [shapes[feature].stride for feature in node.IN_FEATURES]
    arguments["cls_loss"] = cls_loss(name, node)
    arguments["head_in_features"] = node.IN_FEATURES
    head = {
        "in_channels": shapes[node.IN_FEATURES[0]].channels,
        "num_classes": node.NUM_CLASSES,
        "conv_channels": node.CONV_CHANNELS,
        "num_convs": node.NUM_CONVS,
        "strides": strides,
        "norm": node.NORM,
        "prior_prob": node.PRIOR_PROB,
    }
    return arguments, head, strides


def _anchor_arguments(
    generator: CellAnchors,
    assigner: MMDetMaxIoUAssigner,
    beta: float,
    stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
) -> dict[str, Any]:
    return {
        "anchor_generator": generator,
        "assigner": assigner,
        "box_coder": ClampedDeltaCoder(None, shrink_clamp=SCALE_CLAMP, stds=stds),
        "box_loss": SmoothL1BoxLoss(beta),
        "padding_is_background": False,
        "min_positives": 1,
    }


register(AnchorDetector, retinanet_arguments, "MMDetRetinaNet")
register(AnchorDetector, ssd_arguments, "SSD")
register(FoveaBox, foveabox_arguments)
register(RepPoints, reppoints_arguments)
