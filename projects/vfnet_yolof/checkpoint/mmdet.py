"""Key tables for checkpoints written by MMDetection 2.x and 3.x (and projects built on it).

A detector's layout is put together from the tables of a backbone (ResNet, Res2Net), a neck (FPN,
PAFPN, VFNet-X's, YOLOF's encoder) and a head.
"""

from __future__ import annotations

import itertools
import re

from .rules import (
    CONV_OFFSET,
    NORM,
    SURROUNDING_RULES,
    WEIGHT_BIAS,
    Layout,
    Rule,
    conv_and_norm,
)

PROJECT = "MMDetection"

RAW_VFNET_CONVS = 3  # of each tower, before the output's own


def _res_block(match: re.Match[str]) -> str:
    """Block prefix: stages are ``layer1``..``layer4`` there, ``res2``..``res5`` here."""
    return f"backbone.bottom_up.res{int(match['stage']) + 1}.{match['block']}"


def _numbered_conv(match: re.Match[str]) -> str:
    return f"{_res_block(match)}.conv{match['conv']}"


def _split_conv(match: re.Match[str]) -> str:
    """One of the convolutions that Res2Net has in place of the middle one."""
    return f"{_res_block(match)}.convs.{match['split']}"


def _shortcut(match: re.Match[str]) -> str:
    return f"{_res_block(match)}.shortcut"


def deep_stem_conv(match: re.Match[str]) -> str:
    """Three times convolution, norm and ReLU in a sequence there, three convolutions here."""
    return f"backbone.bottom_up.stem.conv{int(match['index']) // 3 + 1}"


def _fpn_output(match: re.Match[str]) -> str:
    """Output convolutions of the neck: levels P3 to P5, then the two made from P5."""
    level = int(match[1]) + 3
    return f"backbone.fpn_output{level}" if level < 6 else f"backbone.top_block.p{level}"


_CLASSIFIER = Rule(r"backbone\.fc\.(weight|bias)", None, "ImageNet classifier of the backbone")
_BLOCK = r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\."

_CONV = f"{WEIGHT_BIAS}|{CONV_OFFSET}"  # of a convolution that may be deformable

RESNET_RULES: tuple[Rule, ...] = (
    *conv_and_norm(r"backbone\.", "conv1", "bn1", "backbone.bottom_up.stem.conv1", "weight"),
    *conv_and_norm(_BLOCK, "conv(?P<conv>[123])", "bn(?P<conv>[123])", _numbered_conv, _CONV),
    # Before mmcv's deformable convolutions owned their offset branch it stood beside them.
    Rule(
        _BLOCK + rf"conv2_offset\.(?P<part>{WEIGHT_BIAS})",
        lambda m: f"{_res_block(m)}.conv2.conv_offset.{m['part']}",
    ),
    *conv_and_norm(_BLOCK, r"downsample\.0", r"downsample\.1", _shortcut, "weight"),
    _CLASSIFIER,
)

# Res2Net v1d. A stage's first block pools (without weights, number 0) before the convolution of its
# shortcut.
RES2NET_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"backbone\.stem\.", "(?P<index>[036])", "(?P<index>[147])", deep_stem_conv, "weight"
    ),
    *conv_and_norm(_BLOCK, "conv(?P<conv>[13])", "bn(?P<conv>[13])", _numbered_conv, "weight"),
    *conv_and_norm(
        _BLOCK,
        r"convs\.(?P<split>\d+)",
        r"bns\.(?P<split>\d+)",
        _split_conv,
        f"weight|{CONV_OFFSET}",
    ),
    Rule(
        _BLOCK + rf"convs\.(?P<split>\d+)_offset\.(?P<part>{WEIGHT_BIAS})",
        lambda m: f"{_split_conv(m)}.conv_offset.{m['part']}",
    ),
    # The fork of VFNet's authors kept this convolution in the models with DCN and never used it.
    Rule(
        _BLOCK + rf"(?:conv2\.(?:{WEIGHT_BIAS}|{CONV_OFFSET})|bn2\.(?:{NORM}))",
        None,
        "3x3 convolution that the split ones replace",
    ),
    *conv_and_norm(_BLOCK, r"downsample\.1", r"downsample\.2", _shortcut, "weight"),
    _CLASSIFIER,
)

# The neck reads C3..C5, so its lateral convolution 0 belongs to level 3; outputs 3 and 4 are the
# extra levels P6, P7.
_NECK_NORM = "(?:bn|gn)"
FPN_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"neck\.lateral_convs\.([0-2])\.",
        "conv",
        _NECK_NORM,
        lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}",
    ),
    *conv_and_norm(r"neck\.fpn_convs\.([0-4])\.", "conv", _NECK_NORM, _fpn_output),
)


def _path_rules(finest: int) -> tuple[Rule, ...]:
    """The bottom-up path of PAFPN, whose first output convolution is that of level ``finest``."""
    return (
        *conv_and_norm(
            r"neck\.downsample_convs\.([01])\.",
            "conv",
            _NECK_NORM,
            lambda m: f"backbone.pan_down.p{int(m[1]) + 4}",
        ),
        *conv_and_norm(
            r"neck\.pafpn_convs\.([0-2])\.",
            "conv",
            _NECK_NORM,
            lambda m: f"backbone.pan_output.p{int(m[1]) + finest}",
            _CONV,
        ),
    )


def encoder_rules(neck: str, conv: str, norm: str) -> tuple[Rule, ...]:
    """YOLOF's dilated encoder, here and in its authors' code.

    Args:
        neck: name of the encoder there.
        conv, norm: names, within a block, of each convolution and norm there.
    """
    block = r"dilated_encoder_blocks\.(\d+)\.conv([123])\."
    return (
        *conv_and_norm(rf"{neck}\.", "lateral_conv", "lateral_norm", "backbone.lateral"),
        *conv_and_norm(rf"{neck}\.", "fpn_conv", "fpn_norm", "backbone.output"),
        *conv_and_norm(rf"{neck}\.{block}", conv, norm, r"backbone.blocks.\1.conv\2"),
    )


_TOWER = r"bbox_head\.(cls|reg)_convs\.(\d+)\."
TOWER_RULES: tuple[Rule, ...] = (
    *conv_and_norm(_TOWER, "conv", "gn", r"head.\1_tower.\2", _CONV, ours_conv=".conv"),
    Rule(  # as of conv2_offset above
        rf"{_TOWER}conv_offset\.({WEIGHT_BIAS})",
        r"head.\1_tower.\2.conv.conv_offset.\3",
    ),
)

VFNET_HEAD_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"bbox_head\.vfnet_reg_conv\.", "conv", "gn", "head.reg_conv", ours_conv=".conv"
    ),
    Rule(rf"bbox_head\.vfnet_reg\.({WEIGHT_BIAS})", r"head.reg_init.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales_init.\1.scale"),
    Rule(r"bbox_head\.vfnet_reg_refine_dconv\.weight", "head.reg_star.weight"),
    Rule(rf"bbox_head\.vfnet_reg_refine\.({WEIGHT_BIAS})", r"head.reg_refine.\1"),
    Rule(r"bbox_head\.scales_refine\.(\d+)\.scale", r"head.scales_refine.\1.scale"),
    Rule(r"bbox_head\.vfnet_cls_dconv\.weight", "head.cls_star.weight"),
    Rule(rf"bbox_head\.vfnet_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
)

# VFNet without its three components. What stands there beside the tower, a convolution for each of
# the two outputs, is the tower's last one here.
RAW_VFNET_HEAD_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"bbox_head\.vfnet_(cls|reg)_conv\.",
        "conv",
        "gn",
        rf"head.\1_tower.{RAW_VFNET_CONVS}",
        ours_conv=".conv",
    ),
    Rule(rf"bbox_head\.vfnet_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.vfnet_reg\.({WEIGHT_BIAS})", r"head.reg.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)

# The channels of the regression are four sides (left, top, right, bottom) of reg_max + 1 bins each,
# there and here.
GFL_HEAD_RULES: tuple[Rule, ...] = (
    Rule(rf"bbox_head\.gfl_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.gfl_reg\.({WEIGHT_BIAS})", r"head.reg.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
    Rule(
        r"bbox_head\.(?:integral|distribution_project)\.project",
        None,
        "positions of the bins, set by the configuration (reg_max)",
    ),
)

RETINANET_HEAD_RULES: tuple[Rule, ...] = (
    Rule(rf"bbox_head\.retina_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.retina_reg\.({WEIGHT_BIAS})", r"head.deltas.\1"),
)

ATSS_HEAD_RULES: tuple[Rule, ...] = (
    Rule(rf"bbox_head\.atss_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.atss_reg\.({WEIGHT_BIAS})", r"head.reg.\1"),
    Rule(rf"bbox_head\.atss_centerness\.({WEIGHT_BIAS})", r"head.quality.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)

FOVEABOX_HEAD_RULES: tuple[Rule, ...] = (
    Rule(rf"bbox_head\.conv_cls\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.conv_reg\.({WEIGHT_BIAS})", r"head.reg.\1"),
)

REPPOINTS_HEAD_RULES: tuple[Rule, ...] = (
    Rule(r"bbox_head\.moment_transfer", "head.representation.moment_transfer"),
    Rule(r"bbox_head\.reppoints_cls_conv\.weight", "head.cls_conv.weight"),
    Rule(rf"bbox_head\.reppoints_cls_out\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.reppoints_pts_init_conv\.({WEIGHT_BIAS})", r"head.init_conv.\1"),
    Rule(rf"bbox_head\.reppoints_pts_init_out\.({WEIGHT_BIAS})", r"head.init_points.\1"),
    Rule(r"bbox_head\.reppoints_pts_refine_conv\.weight", "head.refine_conv.weight"),
    Rule(rf"bbox_head\.reppoints_pts_refine_out\.({WEIGHT_BIAS})", r"head.refine_points.\1"),
)

# Numbers of VGG16's convolutions in a sequence with its ReLUs and pools, as everybody has them.
_VGG_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_VGG_CONVS = {31: "fc6", 33: "fc7"} | {
    number: f"conv{stage}_{i}"
    for stage, numbers in enumerate(_VGG_STAGES, start=1)
    for i, number in enumerate(numbers, start=1)
}
VGG_RULES: tuple[Rule, ...] = tuple(
    Rule(rf"backbone\.features\.{n}\.({WEIGHT_BIAS})", rf"backbone.bottom_up.{name}.\1")
    for n, name in _VGG_CONVS.items()
)

_EXTRA_CONVS = ("reduce", "conv")
_SSD_PARTS = {"cls": "cls_logits", "reg": "deltas"}
SSD_RULES: tuple[Rule, ...] = (
    Rule(r"(?:neck|backbone)\.l2_norm\.weight", "backbone.l2_norm.weight"),
    Rule(
        rf"neck\.extra_layers\.(\d+)\.([01])\.conv\.({WEIGHT_BIAS})",
        lambda m: f"backbone.extra.{m[1]}.{_EXTRA_CONVS[int(m[2])]}.{m[3]}",
    ),
    # Before version 2.14 they were one sequence and part of the backbone.
    Rule(
        rf"backbone\.extra\.(\d+)\.({WEIGHT_BIAS})",
        lambda m: f"backbone.extra.{int(m[1]) // 2}.{_EXTRA_CONVS[int(m[1]) % 2]}.{m[2]}",
    ),
    Rule(
        rf"bbox_head\.(cls|reg)_convs\.(\d+)\.(?:0\.)?({WEIGHT_BIAS})",
        lambda m: f"head.levels.{m[2]}.{_SSD_PARTS[m[1]]}.{m[3]}",
    ),
)


def yolof_output_rules(head: str) -> tuple[Rule, ...]:
    """The three outputs of YOLOF's head, whose name there is ``head``."""
    return (
        Rule(rf"{head}\.cls_score\.({WEIGHT_BIAS})", r"head.cls_logits.\1"),
        Rule(rf"{head}\.bbox_pred\.({WEIGHT_BIAS})", r"head.deltas.\1"),
        Rule(rf"{head}\.object_pred\.({WEIGHT_BIAS})", r"head.objectness.\1"),
    )


YOLOF_TOWERS = {"cls": "cls_tower", "bbox": "reg_tower"}
YOLOF_HEAD_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"bbox_head\.(cls|bbox)_subnet\.(\d+)\.",
        "conv",
        "bn",
        lambda m: f"head.{YOLOF_TOWERS[m[1]]}.{m[2]}",
        ours_conv=".conv",
    ),
    *yolof_output_rules("bbox_head"),
)

_RESNET = (r"backbone\.layer1\.0\.conv1\.weight", RESNET_RULES)
# In order: what only one of them has decides.
_BACKBONES = ((r"backbone\.layer1\.0\.convs\.0\.weight", RES2NET_RULES), _RESNET)
_NECKS = (
    (r"neck\.pafpn_convs\.2\.conv\.weight", FPN_RULES + _path_rules(finest=3)),
    (r"neck\.pafpn_convs\.1\.conv\.weight", FPN_RULES + _path_rules(finest=4)),
    (r"neck\.fpn_convs\.0\.conv\.weight", FPN_RULES),
)
# Detector, a name that only it has, its own rules, and the geometry of its boxes.
_HEADS = (
    ("raw VFNet", r"bbox_head\.vfnet_cls_conv\.conv\.weight", RAW_VFNET_HEAD_RULES, ""),
    ("VFNet", r"bbox_head\.vfnet_cls\.weight", VFNET_HEAD_RULES, ""),
    ("GFL", r"bbox_head\.gfl_cls\.weight", GFL_HEAD_RULES, ""),
    (
        "RetinaNet",
        r"bbox_head\.retina_cls\.weight",
        RETINANET_HEAD_RULES,
        "ratio-major anchors",
    ),
    ("ATSS", r"bbox_head\.atss_cls\.weight", ATSS_HEAD_RULES, "anchor deltas"),
    ("FoveaBox", r"bbox_head\.conv_cls\.weight", FOVEABOX_HEAD_RULES, "fovea"),
    ("RepPoints", r"bbox_head\.reppoints_cls_out\.weight", REPPOINTS_HEAD_RULES, ""),
)


def _pyramid_layouts() -> tuple[Layout, ...]:
    """Every head with every backbone and neck."""
    return tuple(
        Layout(
            project=PROJECT,
            detector=detector,
            signature=(head, backbone, neck),
            rules=backbone_rules + neck_rules + TOWER_RULES + head_rules + SURROUNDING_RULES,
            box_geometry=geometry,
        )
        for detector, head, head_rules, geometry in _HEADS
        for (backbone, backbone_rules), (neck, neck_rules) in itertools.product(_BACKBONES, _NECKS)
    )


LAYOUTS: tuple[Layout, ...] = (
    # The authors' first release stands on MMDetection 1.x. 81 classes there count the background,
    # its sigmoid scores do not: 80 channels in the order of the categories. Its boxes are others:
    # points lie at (i + 0.5) * stride - 0.5, and x2, y2 are the last pixels inside.
    Layout(
        project="GFocal (MMDetection 1.x)",
        detector="GFL",
        signature=(
            r"bbox_head\.gfl_cls\.weight",
            r"bbox_head\.distribution_project\.project",
            _RESNET[0],
        ),
        rules=RESNET_RULES + FPN_RULES + TOWER_RULES + GFL_HEAD_RULES + SURROUNDING_RULES,
        box_geometry="pixel indices",
    ),
    *_pyramid_layouts(),
    Layout(
        project=PROJECT,
        detector="SSD",
        signature=(
            r"backbone\.features\.33\.weight",
            r"(?:neck|backbone)\.l2_norm\.weight",
            r"bbox_head\.cls_convs\.0\.(?:0\.)?weight",
        ),
        rules=VGG_RULES + SSD_RULES + SURROUNDING_RULES,
        box_geometry="ratio-major anchors",
    ),
    Layout(
        project=PROJECT,
        detector="YOLOF",
        signature=(r"bbox_head\.object_pred\.weight", r"neck\.lateral_conv\.weight", _RESNET[0]),
        rules=RESNET_RULES
        + encoder_rules("neck", "conv", "bn")
        + YOLOF_HEAD_RULES
        + SURROUNDING_RULES,
        # There, convolutions before a norm have no bias; in the authors' code they have.
        zero_biases=(
            r"backbone\.blocks\.\d+\.conv[123]\.bias",
            r"head\.(cls|reg)_tower\.\d+\.conv\.bias",
        ),
    ),
)
