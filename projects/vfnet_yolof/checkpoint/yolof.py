"""Key tables for checkpoints of YOLOF's authors, on Detectron2 and on cvpods: the same names."""

from __future__ import annotations

import re

from .backbone_tables import CSPDARKNET_RULES
from .rules import SURROUNDING_RULES, Layout, Rule

_WEIGHTS = r"weight|bias"
_NORM = r"weight|bias|running_mean|running_var|num_batches_tracked"


def _tower(match: re.Match[str]) -> str:
    """A tower counts convolution, norm and activation one by one there."""
    name = {"cls": "cls_tower", "bbox": "reg_tower"}[match["tower"]]
    block, part = divmod(int(match["index"]), 3)
    return f"head.{name}.{block}.{('conv', 'norm', 'activation')[part]}.{match['rest']}"


RESNET_RULES: tuple[Rule, ...] = (
    # Detectron2's ResNet there and here; cvpods has the same.
    Rule(r"backbone\.((?:stem|res[2-5])\..*)", r"backbone.bottom_up.\1"),
)

ENCODER_RULES: tuple[Rule, ...] = (
    Rule(rf"encoder\.lateral_conv\.({_WEIGHTS})", r"backbone.lateral.\1"),
    Rule(rf"encoder\.lateral_norm\.({_NORM})", r"backbone.lateral.norm.\1"),
    Rule(rf"encoder\.fpn_conv\.({_WEIGHTS})", r"backbone.output.\1"),
    Rule(rf"encoder\.fpn_norm\.({_NORM})", r"backbone.output.norm.\1"),
    Rule(
        rf"encoder\.dilated_encoder_blocks\.(\d+)\.conv([123])\.0\.({_WEIGHTS})",
        r"backbone.blocks.\1.conv\2.\3",
    ),
    Rule(
        rf"encoder\.dilated_encoder_blocks\.(\d+)\.conv([123])\.1\.({_NORM})",
        r"backbone.blocks.\1.conv\2.norm.\3",
    ),
)

DECODER_RULES: tuple[Rule, ...] = (
    Rule(rf"decoder\.(?P<tower>cls|bbox)_subnet\.(?P<index>\d+)\.(?P<rest>{_NORM})", _tower),
    Rule(rf"decoder\.cls_score\.({_WEIGHTS})", r"head.cls_logits.\1"),
    Rule(rf"decoder\.bbox_pred\.({_WEIGHTS})", r"head.deltas.\1"),
    Rule(rf"decoder\.object_pred\.({_WEIGHTS})", r"head.objectness.\1"),
)

ANCHOR_RULES: tuple[Rule, ...] = (
    Rule(r"anchor_generator\.cell_anchors\.\d+", None, "anchors, set by the configuration"),
)

HEAD = r"decoder\.object_pred\.weight"
DETECTOR_RULES = ENCODER_RULES + DECODER_RULES + ANCHOR_RULES + SURROUNDING_RULES
PROJECT = "Detectron2 or cvpods"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        project=PROJECT,
        detector="YOLOF",
        signature=(HEAD, r"backbone\.stem\.conv1\.weight"),
        rules=RESNET_RULES + DETECTOR_RULES,
    ),
    Layout(
        project=PROJECT,
        detector="YOLOF",
        signature=(HEAD, r"backbone\.layer1\.base_layer\.0\.weight"),
        rules=CSPDARKNET_RULES + DETECTOR_RULES,
    ),
)
