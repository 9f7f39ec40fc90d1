"""Key tables for checkpoints of YOLOF's authors, on Detectron2 and on cvpods: the same names."""

from __future__ import annotations

import re

from .mmdet import YOLOF_TOWERS, encoder_rules, yolof_output_rules
from .rules import NORM, SURROUNDING_RULES, Layout, Rule, conv_and_norm

# Detectron2's ResNet there and here; cvpods has the same.
RESNET_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.((?:stem|res[2-5])\..*)", r"backbone.bottom_up.\1"),
)

# CSPDarkNet. Convolution, norm and Mish are numbers 0, 1, 2 of a sequence. The convolution that
# leads to the residual blocks belongs to the first of them there.
_LAYER = r"backbone\.layer(?P<stage>[1-5])\."
_BLOCK = _LAYER + r"stage_layers\.(?P<block>\d+)\."
_PARTS = {
    "base_layer": "down",
    "partial_transition1": "bypass",
    r"stage_layers\.0\.downsample": "entry",
    "partial_transition2": "exit",
    "fuse_transition": "fuse",
}
_STAGE = r"backbone.bottom_up.res\g<stage>"
CSPDARKNET_RULES: tuple[Rule, ...] = (
    *conv_and_norm(r"backbone\.", "conv1", "bn1", "backbone.bottom_up.stem.conv", "weight"),
    *(
        rule
        for theirs, ours in _PARTS.items()
        for rule in conv_and_norm(rf"{_LAYER}{theirs}\.", "0", "1", f"{_STAGE}.{ours}", "weight")
    ),
    *conv_and_norm(
        _BLOCK,
        "conv(?P<conv>[12])",
        "bn(?P<conv>[12])",
        rf"{_STAGE}.blocks.\g<block>.conv\g<conv>",
        "weight",
    ),
)


def _tower(match: re.Match[str]) -> str:
    """A tower counts convolution, norm and activation one by one there."""
    block, part = divmod(int(match["index"]), 3)
    name = ("conv", "norm", "activation")[part]
    return f"head.{YOLOF_TOWERS[match['tower']]}.{block}.{name}.{match['rest']}"


DETECTOR_RULES: tuple[Rule, ...] = (
    *encoder_rules("encoder", "0", "1"),
    Rule(rf"decoder\.(?P<tower>cls|bbox)_subnet\.(?P<index>\d+)\.(?P<rest>{NORM})", _tower),
    *yolof_output_rules("decoder"),
    Rule(r"anchor_generator\.cell_anchors\.\d+", None, "anchors, set by the configuration"),
    *SURROUNDING_RULES,
)

_HEAD = r"decoder\.object_pred\.weight"
_PROJECT = "Detectron2 or cvpods"
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        project=_PROJECT,
        detector="YOLOF",
        signature=(_HEAD, r"backbone\.stem\.conv1\.weight"),
        rules=RESNET_RULES + DETECTOR_RULES,
    ),
    Layout(
        project=_PROJECT,
        detector="YOLOF",
        signature=(_HEAD, r"backbone\.layer1\.base_layer\.0\.weight"),
        rules=CSPDARKNET_RULES + DETECTOR_RULES,
    ),
)
