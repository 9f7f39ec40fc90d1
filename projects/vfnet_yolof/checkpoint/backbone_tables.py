"""Key tables of backbones that no detector of MMDetection has: CSPDarkNet, Caffe2's, our own names.

Sources are written with ``backbone.`` before each name, as detectors store them; files that hold
a backbone alone get that prefix before they are looked up (:mod:`.backbones`).
"""

from __future__ import annotations

import re

from .rules import Rule

_OURS = "backbone.bottom_up"
_BN = r"weight|bias|running_mean|running_var|num_batches_tracked"
_CLASSIFIER = "ImageNet classifier of the backbone"

CLASSIFIER_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.(?:head\.)?(?:fc|linear|classifier)\.(?:weight|bias)", None, _CLASSIFIER),
    Rule(r"head\.fc\.(?:weight|bias)", None, _CLASSIFIER),
)

# The stem as the Res2Net authors' own files (v1b, the same network) have it: a sequence `conv1`
# without its last norm, `bn1`. The blocks have the names of MMDetection's.
RES2NET_STEM_RULES: tuple[Rule, ...] = (
    Rule(
        r"backbone\.conv1\.([036])\.weight",
        lambda m: f"{_OURS}.stem.conv{int(m[1]) // 3 + 1}.weight",
    ),
    Rule(
        rf"backbone\.conv1\.([14])\.({_BN})",
        lambda m: f"{_OURS}.stem.conv{int(m[1]) // 3 + 1}.norm.{m[2]}",
    ),
    Rule(rf"backbone\.bn1\.({_BN})", rf"{_OURS}.stem.conv3.norm.\1"),
)

# The YOLOF authors' DarkNet. Convolution, norm and Mish are numbers 0, 1, 2 of a sequence. The
# convolution that leads to the residual blocks belongs to the first of them there.
_STAGE = rf"{_OURS}.res\g<stage>"
_LAYER = r"backbone\.layer(?P<stage>[1-5])\."
_PARTS = {
    "base_layer": "down",
    "partial_transition1": "bypass",
    "stage_layers.0.downsample": "entry",
    "partial_transition2": "exit",
    "fuse_transition": "fuse",
}


def _csp_rules(theirs: str, ours: str) -> tuple[Rule, ...]:
    source = _LAYER + re.escape(theirs)
    return (
        Rule(rf"{source}\.0\.weight", rf"{_STAGE}.{ours}.weight"),
        Rule(rf"{source}\.1\.(?P<rest>{_BN})", rf"{_STAGE}.{ours}.norm.\g<rest>"),
    )


_BLOCK = _LAYER + r"stage_layers\.(?P<block>\d+)\."
CSPDARKNET_RULES: tuple[Rule, ...] = (
    Rule(r"backbone\.conv1\.weight", f"{_OURS}.stem.conv.weight"),
    Rule(rf"backbone\.bn1\.({_BN})", rf"{_OURS}.stem.conv.norm.\1"),
    *(rule for pair in _PARTS.items() for rule in _csp_rules(*pair)),
    Rule(
        _BLOCK + r"conv(?P<conv>[12])\.weight",
        rf"{_STAGE}.blocks.\g<block>.conv\g<conv>.weight",
    ),
    Rule(
        _BLOCK + rf"bn(?P<conv>[12])\.(?P<rest>{_BN})",
        rf"{_STAGE}.blocks.\g<block>.conv\g<conv>.norm.\g<rest>",
    ),
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
