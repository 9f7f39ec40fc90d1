"""Key tables for checkpoints written by MMDetection 2.x and 3.x (and projects built on it).

The ResNet and FPN tables are shared by all of its detectors; a detector adds the table of its head.
"""

from __future__ import annotations

import re

from .rules import Layout, Rule

PROJECT = "MMDetection"

# Both EMA hooks of the OpenMMLab projects swap before saving: the plain names hold the averaged
# weights, and what mmcv's hook stores as "ema_<name with underscores>" is the running copy that
# training goes on with.
_EMA_COPY = "second set of weights kept by the EMA hook (the plain names hold the averaged ones)"

_BN = r"weight|bias|running_mean|running_var|num_batches_tracked"


def _res_block(match: re.Match[str]) -> str:
    """Block prefix: stages are ``layer1``..``layer4`` there, ``res2``..``res5`` here."""
    return f"backbone.bottom_up.res{int(match['stage']) + 1}.{match['block']}"


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

# The neck reads C3..C5, so its lateral convolution 0 belongs to level 3; outputs 3 and 4 are the
# extra levels P6, P7.
FPN_RULES: tuple[Rule, ...] = (
    Rule(
        r"neck\.lateral_convs\.([0-2])\.conv\.(weight|bias)",
        lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}.{m[2]}",
    ),
    Rule(
        r"neck\.fpn_convs\.([0-2])\.conv\.(weight|bias)",
        lambda m: f"backbone.fpn_output{int(m[1]) + 3}.{m[2]}",
    ),
    Rule(
        r"neck\.fpn_convs\.([34])\.conv\.(weight|bias)",
        lambda m: f"backbone.top_block.p{int(m[1]) + 3}.{m[2]}",
    ),
)

TOWER_RULES: tuple[Rule, ...] = (
    Rule(
        r"bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.(weight|bias|conv_offset\.(?:weight|bias))",
        r"head.\1_tower.\2.conv.\3",
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

# The channels of the regression are four sides (left, top, right, bottom) of reg_max + 1 bins each,
# there and here.
GFL_HEAD_RULES: tuple[Rule, ...] = (
    Rule(r"bbox_head\.gfl_cls\.(weight|bias)", r"head.cls_logits.\1"),
    Rule(r"bbox_head\.gfl_reg\.(weight|bias)", r"head.reg.\1"),
    Rule(r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
    Rule(
        r"bbox_head\.integral\.project",
        None,
        "positions of the bins, set by the configuration (reg_max)",
    ),
)

COMMON_RULES: tuple[Rule, ...] = (
    Rule(r"ema_(backbone|neck|bbox_head)_.*", None, _EMA_COPY),
    # MMDetection 3.x: the data preprocessor's mean and std are set by our configuration.
    Rule(r"steps", None, "step counter of the EMA hook"),
    Rule(r"data_preprocessor\.(mean|std)", None, "pixel mean and std, set by the configuration"),
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        project=PROJECT,
        detector="VFNet",
        signature=(r"bbox_head\.vfnet_cls\.weight", r"backbone\.layer1\.0\.conv1\.weight"),
        rules=RESNET_RULES + FPN_RULES + TOWER_RULES + VFNET_HEAD_RULES + COMMON_RULES,
    ),
    # The authors' first release stands on MMDetection 1.x. Its tensors would fit (81 classes there
    # count the background, its sigmoid scores do not: 80 channels in the order of the categories),
    # but its boxes are others: anchors lie at (i + 0.5) * stride - 0.5 and x2, y2 are the last
    # pixels inside, half a pixel more on every side. No configuration here says that exactly.
    Layout(
        project="GFocal (MMDetection 1.x)",
        detector="GFL",
        signature=(r"bbox_head\.gfl_cls\.weight", r"bbox_head\.distribution_project\.project"),
        rules=(),
        refusal=(
            "whose weights mean other boxes than MMDetection 2.x's (anchors half a cell further, "
            "x2 and y2 inside the box): it would load and lose several AP. MMDetection 2.x and 3.x "
            "publish the same models; convert those"
        ),
    ),
    Layout(
        project=PROJECT,
        detector="GFL",
        signature=(r"bbox_head\.gfl_cls\.weight", r"backbone\.layer1\.0\.conv1\.weight"),
        rules=RESNET_RULES + FPN_RULES + TOWER_RULES + GFL_HEAD_RULES + COMMON_RULES,
    ),
)
