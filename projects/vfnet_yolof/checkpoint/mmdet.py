"""Key tables for checkpoints written by MMDetection 2.x and 3.x (and projects built on it).

A detector's layout is put together from the tables of a backbone (ResNet, Res2Net), a neck (FPN,
PAFPN, VFNet-X's, YOLOF's encoder) and a head.
"""

from __future__ import annotations

import itertools
import re

from .rules import SURROUNDING_RULES, Layout, Rule

PROJECT = "MMDetection"

_WB = r"weight|bias"
_BN = r"weight|bias|running_mean|running_var|num_batches_tracked"
RAW_VFNET_CONVS = 3  # of each tower, before the output's own
_OFFSET = r"conv_offset\.(?:weight|bias)"


def _res_block(match: re.Match[str]) -> str:
    """Block prefix: stages are ``layer1``..``layer4`` there, ``res2``..``res5`` here."""
    return f"backbone.bottom_up.res{int(match['stage']) + 1}.{match['block']}"


def _fpn_output(match: re.Match[str]) -> str:
    """Output convolutions of the neck: levels P3 to P5, then the two made from P5."""
    level = int(match[1]) + 3
    return f"backbone.fpn_output{level}" if level < 6 else f"backbone.top_block.p{level}"


RESNET_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.conv1\.weight", "backbone.bottom_up.stem.conv1.weight"),
    Rule(rf"backbone\.bn1\.({_BN})", r"backbone.bottom_up.stem.conv1.norm.\1"),
    Rule(
        r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\.conv(?P<conv>[123])\."
        r"(?P<rest>weight|bias|conv_offset\.(?:weight|bias))",
        lambda m: f"{_res_block(m)}.conv{m['conv']}.{m['rest']}",
    ),
    # Before mmcv's deformable convolutions owned their offset branch it stood beside them.
    Rule(
        r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\.conv2_offset\.(?P<rest>weight|bias)",
        lambda m: f"{_res_block(m)}.conv2.conv_offset.{m['rest']}",
    ),
    Rule(
        rf"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\.bn(?P<conv>[123])\.(?P<rest>{_BN})",
        lambda m: f"{_res_block(m)}.conv{m['conv']}.norm.{m['rest']}",
    ),
    Rule(
        r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\.downsample\.0\.weight",
        lambda m: f"{_res_block(m)}.shortcut.weight",
    ),
    Rule(
        rf"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\.downsample\.1\.(?P<rest>{_BN})",
        lambda m: f"{_res_block(m)}.shortcut.norm.{m['rest']}",
    ),
    Rule(r"backbone\.fc\.(weight|bias)", None, "ImageNet classifier of the backbone"),
)

# Res2Net v1d. The deep stem is a sequence of convolution, norm and ReLU, three times; a stage's
# first block pools (without weights, number 0) before the convolution of its shortcut.
_RES2_BLOCK = r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\."
RES2NET_RULES: tuple[Rule, ...] = (
    Rule(
        r"backbone\.stem\.([036])\.weight",
        lambda m: f"backbone.bottom_up.stem.conv{int(m[1]) // 3 + 1}.weight",
    ),
    Rule(
        rf"backbone\.stem\.([147])\.({_BN})",
        lambda m: f"backbone.bottom_up.stem.conv{int(m[1]) // 3 + 1}.norm.{m[2]}",
    ),
    Rule(
        _RES2_BLOCK + r"conv(?P<conv>[13])\.weight",
        lambda m: f"{_res_block(m)}.conv{m['conv']}.weight",
    ),
    Rule(
        _RES2_BLOCK + rf"bn(?P<conv>[13])\.(?P<rest>{_BN})",
        lambda m: f"{_res_block(m)}.conv{m['conv']}.norm.{m['rest']}",
    ),
    Rule(
        _RES2_BLOCK + rf"convs\.(?P<part>\d+)\.(?P<rest>weight|{_OFFSET})",
        lambda m: f"{_res_block(m)}.convs.{m['part']}.{m['rest']}",
    ),
    Rule(
        _RES2_BLOCK + rf"convs\.(?P<part>\d+)_offset\.(?P<rest>{_WB})",
        lambda m: f"{_res_block(m)}.convs.{m['part']}.conv_offset.{m['rest']}",
    ),
    Rule(
        _RES2_BLOCK + rf"bns\.(?P<part>\d+)\.(?P<rest>{_BN})",
        lambda m: f"{_res_block(m)}.convs.{m['part']}.norm.{m['rest']}",
    ),
    # The fork of VFNet's authors kept this convolution in the models with DCN and never used it.
    Rule(
        _RES2_BLOCK + rf"(?:conv2\.(?:{_WB}|{_OFFSET})|bn2\.(?:{_BN}))",
        None,
        "3x3 convolution that the split ones replace",
    ),
    Rule(_RES2_BLOCK + r"downsample\.1\.weight", lambda m: f"{_res_block(m)}.shortcut.weight"),
    Rule(
        _RES2_BLOCK + rf"downsample\.2\.(?P<rest>{_BN})",
        lambda m: f"{_res_block(m)}.shortcut.norm.{m['rest']}",
    ),
    Rule(r"backbone\.fc\.(weight|bias)", None, "ImageNet classifier of the backbone"),
)

# The neck reads C3..C5, so its lateral convolution 0 belongs to level 3; outputs 3 and 4 are the
# extra levels P6, P7.
FPN_RULES: tuple[Rule, ...] = (
    Rule(
        rf"neck\.lateral_convs\.([0-2])\.conv\.({_WB})",
        lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}.{m[2]}",
    ),
    Rule(
        rf"neck\.lateral_convs\.([0-2])\.(?:bn|gn)\.({_BN})",
        lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}.norm.{m[2]}",
    ),
    Rule(rf"neck\.fpn_convs\.([0-4])\.conv\.({_WB})", lambda m: f"{_fpn_output(m)}.{m[2]}"),
    Rule(
        rf"neck\.fpn_convs\.([0-4])\.(?:bn|gn)\.({_BN})",
        lambda m: f"{_fpn_output(m)}.norm.{m[2]}",
    ),
)


def _path_rules(finest: int) -> tuple[Rule, ...]:
    """The bottom-up path of PAFPN, whose first output convolution is that of level ``finest``."""
    return (
        Rule(
            rf"neck\.downsample_convs\.([01])\.conv\.({_WB})",
            lambda m: f"backbone.pan_down.p{int(m[1]) + 4}.{m[2]}",
        ),
        Rule(
            rf"neck\.downsample_convs\.([01])\.(?:bn|gn)\.({_BN})",
            lambda m: f"backbone.pan_down.p{int(m[1]) + 4}.norm.{m[2]}",
        ),
        Rule(
            rf"neck\.pafpn_convs\.([0-2])\.conv\.({_WB}|{_OFFSET})",
            lambda m: f"backbone.pan_output.p{int(m[1]) + finest}.{m[2]}",
        ),
        Rule(
            rf"neck\.pafpn_convs\.([0-2])\.(?:bn|gn)\.({_BN})",
            lambda m: f"backbone.pan_output.p{int(m[1]) + finest}.norm.{m[2]}",
        ),
    )


ENCODER_RULES: tuple[Rule, ...] = (
    Rule(rf"neck\.lateral_conv\.({_WB})", r"backbone.lateral.\1"),
    Rule(rf"neck\.lateral_norm\.({_BN})", r"backbone.lateral.norm.\1"),
    Rule(rf"neck\.fpn_conv\.({_WB})", r"backbone.output.\1"),
    Rule(rf"neck\.fpn_norm\.({_BN})", r"backbone.output.norm.\1"),
    Rule(
        rf"neck\.dilated_encoder_blocks\.(\d+)\.conv([123])\.conv\.({_WB})",
        r"backbone.blocks.\1.conv\2.\3",
    ),
    Rule(
        rf"neck\.dilated_encoder_blocks\.(\d+)\.conv([123])\.bn\.({_BN})",
        r"backbone.blocks.\1.conv\2.norm.\3",
    ),
)

TOWER_RULES: tuple[Rule, ...] = (
    Rule(
        r"bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.(weight|bias|conv_offset\.(?:weight|bias))",
        r"head.\1_tower.\2.conv.\3",
    ),
    Rule(
        rf"bbox_head\.(cls|reg)_convs\.(\d+)\.conv_offset\.({_WB})",  # as of conv2_offset above
        r"head.\1_tower.\2.conv.conv_offset.\3",
    ),
    Rule(r"bbox_head\.(cls|reg)_convs\.(\d+)\.gn\.(weight|bias)", r"head.\1_tower.\2.norm.\3"),
)

VFNET_HEAD_RULES: tuple[Rule, ...] = (
    Rule(r"bbox_head\.vfnet_reg_conv\.conv\.(weight|bias)", r"head.reg_conv.conv.\1"),
    Rule(r"bbox_head\.vfnet_reg_conv\.gn\.(weight|bias)", r"head.reg_conv.norm.\1"),
    Rule(r"bbox_head\.vfnet_reg\.(weight|bias)", r"head.reg_init.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales_init.\1.scale"),
    Rule(r"bbox_head\.vfnet_reg_refine_dconv\.weight", "head.reg_star.weight"),
    Rule(r"bbox_head\.vfnet_reg_refine\.(weight|bias)", r"head.reg_refine.\1"),
    Rule(r"bbox_head\.scales_refine\.(\d+)\.scale", r"head.scales_refine.\1.scale"),
    Rule(r"bbox_head\.vfnet_cls_dconv\.weight", "head.cls_star.weight"),
    Rule(r"bbox_head\.vfnet_cls\.(weight|bias)", r"head.cls_logits.\1"),
)

# VFNet without its three components. What stands there beside the tower, a convolution for each of
# the two outputs, is the tower's last one here.
RAW_VFNET_HEAD_RULES: tuple[Rule, ...] = (
    Rule(
        rf"bbox_head\.vfnet_(cls|reg)_conv\.conv\.({_WB})",
        rf"head.\1_tower.{RAW_VFNET_CONVS}.conv.\2",
    ),
    Rule(
        rf"bbox_head\.vfnet_(cls|reg)_conv\.gn\.({_WB})",
        rf"head.\1_tower.{RAW_VFNET_CONVS}.norm.\2",
    ),
    Rule(rf"bbox_head\.vfnet_cls\.({_WB})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.vfnet_reg\.({_WB})", r"head.reg.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)

# The channels of the regression are four sides (left, top, right, bottom) of reg_max + 1 bins each,
# there and here.
GFL_HEAD_RULES: tuple[Rule, ...] = (
    Rule(r"bbox_head\.gfl_cls\.(weight|bias)", r"head.cls_logits.\1"),
    Rule(r"bbox_head\.gfl_reg\.(weight|bias)", r"head.reg.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
    Rule(
        r"bbox_head\.(?:integral|distribution_project)\.project",
        None,
        "positions of the bins, set by the configuration (reg_max)",
    ),
)

_YOLOF_TOWERS = {"cls": "cls_tower", "bbox": "reg_tower"}
YOLOF_HEAD_RULES: tuple[Rule, ...] = (
    Rule(
        rf"bbox_head\.(cls|bbox)_subnet\.(\d+)\.conv\.({_WB})",
        lambda m: f"head.{_YOLOF_TOWERS[m[1]]}.{m[2]}.conv.{m[3]}",
    ),
    Rule(
        rf"bbox_head\.(cls|bbox)_subnet\.(\d+)\.bn\.({_BN})",
        lambda m: f"head.{_YOLOF_TOWERS[m[1]]}.{m[2]}.norm.{m[3]}",
    ),
    Rule(rf"bbox_head\.cls_score\.({_WB})", r"head.cls_logits.\1"),
    Rule(rf"bbox_head\.bbox_pred\.({_WB})", r"head.deltas.\1"),
    Rule(rf"bbox_head\.object_pred\.({_WB})", r"head.objectness.\1"),
)

_RESNET = (r"backbone\.layer1\.0\.conv1\.weight", RESNET_RULES)
# In order: what only one of them has decides.
_BACKBONES = ((r"backbone\.layer1\.0\.convs\.0\.weight", RES2NET_RULES), _RESNET)
_NECKS = (
    (r"neck\.pafpn_convs\.2\.conv\.weight", FPN_RULES + _path_rules(finest=3)),
    (r"neck\.pafpn_convs\.1\.conv\.weight", FPN_RULES + _path_rules(finest=4)),
    (r"neck\.fpn_convs\.0\.conv\.weight", FPN_RULES),
)
_HEADS = (
    (
        "raw VFNet",
        r"bbox_head\.vfnet_cls_conv\.conv\.weight",
        TOWER_RULES + RAW_VFNET_HEAD_RULES,
    ),
    ("VFNet", r"bbox_head\.vfnet_cls\.weight", TOWER_RULES + VFNET_HEAD_RULES),
    ("GFL", r"bbox_head\.gfl_cls\.weight", TOWER_RULES + GFL_HEAD_RULES),
)


def _pyramid_layouts() -> tuple[Layout, ...]:
    """Every head with every backbone and neck."""
    return tuple(
        Layout(
            project=PROJECT,
            detector=detector,
            signature=(head, backbone, neck),
            rules=backbone_rules + neck_rules + head_rules + SURROUNDING_RULES,
        )
        for detector, head, head_rules in _HEADS
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
        detector="YOLOF",
        signature=(r"bbox_head\.object_pred\.weight", r"neck\.lateral_conv\.weight", _RESNET[0]),
        rules=RESNET_RULES + ENCODER_RULES + YOLOF_HEAD_RULES + SURROUNDING_RULES,
        # There, convolutions before a norm have no bias; in the authors' code they have.
        zero_biases=(
            r"backbone\.blocks\.\d+\.conv[123]\.bias",
            r"head\.(cls|reg)_tower\.\d+\.conv\.bias",
        ),
    ),
)
