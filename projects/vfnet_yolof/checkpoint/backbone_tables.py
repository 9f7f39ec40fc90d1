"""Key tables of files that hold a backbone alone: the Res2Net authors', Caffe2's, our own names.

Sources are written with ``backbone.`` before each name, as detectors store them; files that hold
a backbone alone get that prefix before they are looked up (:mod:`.backbones`).
"""

from __future__ import annotations

import re

from .mmdet import VGG_RULES, deep_stem_conv
from .rules import NORM, Rule, conv_and_norm

_OURS = "backbone.bottom_up"
_CLASSIFIER = "ImageNet classifier of the backbone"

CLASSIFIER_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.(?:head\.)?(?:fc|linear|classifier)\.(?:weight|bias)", None, _CLASSIFIER),
    Rule(r"head\.fc\.(?:weight|bias)", None, _CLASSIFIER),
)

# The stem as the Res2Net authors' own files (v1b, the same network) have it: a sequence `conv1`
# without its last norm, `bn1`. The blocks have the names of MMDetection's.
RES2NET_STEM_RULES: tuple[Rule, ...] = (
    *conv_and_norm(
        r"backbone\.conv1\.", "(?P<index>[036])", "(?P<index>[14])", deep_stem_conv, "weight"
    ),
    Rule(rf"backbone\.bn1\.({NORM})", rf"{_OURS}.stem.conv3.norm.\1"),
)

# torchvision's VGG16, whose fully connected layers make SSD's fc6 and fc7 (:mod:`.backbones`), and
# MMDetection's copy of Caffe's, in which they are convolutions already.
VGG_CLASSIFIER = {"0": "fc6", "3": "fc7"}
TORCHVISION_VGG_RULES: tuple[Rule, ...] = (
    *(rule for rule in VGG_RULES if ".fc" not in str(rule.replacement)),
    Rule(
        r"backbone\.classifier\.([03])\.(weight|bias)",
        lambda m: f"{_OURS}.{VGG_CLASSIFIER[m[1]]}.{m[2]}",
    ),
    Rule(r"backbone\.classifier\.6\.(?:weight|bias)", None, _CLASSIFIER),
)

# Caffe2, as in MSRA's ResNets and Facebook's ResNeXts: `res2_0_branch2a_w`, `..._bn_s`.
_CAFFE2_CONV = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def _caffe2_conv(match: re.Match[str]) -> str:
    return f"{_OURS}.res{match['stage']}.{match['block']}.{_CAFFE2_CONV[match['branch']]}"


_BRANCH = r"backbone\.res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2[abc])_"
_NORM = r"(?:bn|gn)_(?P<norm>s|b|rm|riv)"
CAFFE2_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.conv1_w", f"{_OURS}.stem.conv1.weight"),
    Rule(
        r"backbone\.(?:res_)?conv1_" + _NORM,
        lambda m: f"{_OURS}.stem.conv1.norm.{_CAFFE2_NORM[m['norm']]}",
    ),
    Rule(_BRANCH + "w", lambda m: f"{_caffe2_conv(m)}.weight"),
    Rule(_BRANCH + _NORM, lambda m: f"{_caffe2_conv(m)}.norm.{_CAFFE2_NORM[m['norm']]}"),
    Rule(
        r"backbone\.(?:conv1|res\d_\d+_branch\w+)_b",
        None,
        "bias in front of a norm, which Detectron2 has no place for either",
    ),
    Rule(r"backbone\.(?:fc1000|pred|last_out_L1000)_[wb]", None, _CLASSIFIER),
    Rule(r"backbone\..*_momentum", None, "state of the optimizer"),
    Rule(r"backbone\.(?:lr|model_iter)", None, "state of the training"),
)

# Detectron2's own names and this project's, without the part that says where the backbone is.
DETECTRON2_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.(?:bottom_up\.)?((?:stem|res[1-5])\..+)", rf"{_OURS}.\1"),
)
