"""What a detector looks like, told from the names and shapes of its tensors alone.

It reads this project's names, so that a converted checkpoint and the model a configuration builds
are described in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BASIC_DEPTHS: dict[tuple[int, ...], str] = {(2, 2, 2, 2): "18", (3, 4, 6, 3): "34"}
_BOTTLENECK_DEPTHS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "50",
    (3, 4, 23, 3): "101",
    (3, 8, 36, 3): "152",
}
_DARKNET_DEPTH = "53"  # the only one that YOLOF's authors define
_BODY = "backbone.bottom_up."
_ENCODER = "backbone.lateral.weight"
_DELTAS = "head.deltas.weight"
_LOGITS = "head.cls_logits.weight"


@dataclass(frozen=True)
class ModelDescription:
    """Structure read off a state dict; ``None`` or empty where it does not tell.

    ``depth``: "50", "101", ... ; ``groups`` and ``width_per_group`` of the 3x3 convolutions (1 and
    64 for ResNet); ``scales``: parts that Res2Net splits its bottlenecks into, whose channels
    ``width_per_group`` then are; ``dcn_stages``: e.g. ("res3", "res4"); ``dcn_version`` and
    ``head_dcn_version``: 1, 2 or 0 for none; ``has_bottom_up_path``: PAFPN's; ``num_blocks``: of a
    dilated encoder; ``num_convs``: convolutions of the classification tower, ``num_reg_convs``: of
    the other one; ``num_anchors``: per location, where the head has anchors; ``num_bins``: of each
    side's distribution (GFL).
    """

    detector: str | None = None
    depth: str | None = None
    groups: int | None = None
    width_per_group: int | None = None
    scales: int | None = None
    is_darknet: bool = False
    dcn_stages: tuple[str, ...] = ()
    dcn_version: int = 0
    has_fpn: bool = False
    has_bottom_up_path: bool = False
    num_blocks: int | None = None
    num_convs: int | None = None
    num_reg_convs: int | None = None
    num_anchors: int | None = None
    head_dcn_version: int = 0
    num_bins: int | None = None
    num_classes: int | None = None

    def __str__(self) -> str:
        parts = [" ".join(p for p in (self.detector, self._backbone_name()) if p) or "unknown"]
        if self.dcn_version:
            stages = self.dcn_stages
            where = stages[0] if len(stages) == 1 else f"{stages[0]} to {stages[-1]}"
            parts[0] += f" with DCNv{self.dcn_version} in {where}"
        if self.head_dcn_version:
            parts.append(f"DCNv{self.head_dcn_version} in the head")
        if self.num_blocks is not None:
            parts.append(f"{self.num_blocks} blocks in the encoder")
        if self.num_convs is not None and self.num_convs == self.num_reg_convs:
            parts.append(f"{self.num_convs} convolutions per tower")
        elif self.num_convs is not None:
            parts.append(f"{self.num_convs} and {self.num_reg_convs} convolutions in the towers")
        if self.num_anchors is not None:
            parts.append(f"{self.num_anchors} anchors per location")
        if self.num_bins is not None:
            parts.append(f"{self.num_bins} bins per side")
        if self.num_classes is not None:
            parts.append(f"{self.num_classes} classes")
        return ", ".join(parts)

    def _backbone_name(self) -> str:
        if self.depth is None:
            return ""
        if self.is_darknet:
            return f"CSPDarkNet-{self.depth}"
        if self.scales is not None:
            name = f"R2-{self.depth}-{self.width_per_group}wx{self.scales}s"
        elif self.groups is not None and self.groups > 1:
            name = f"X-{self.depth}-{self.groups}x{self.width_per_group}d"
        else:
            name = f"R-{self.depth}"
        neck = "-PAFPN" if self.has_bottom_up_path else "-FPN"
        return name + (neck if self.has_fpn else "")


def describe(shapes: Mapping[str, Sequence[int]]) -> ModelDescription:
    """Describe the model whose state dict has these tensor ``shapes`` (this project's names)."""
    depth, groups, width = _resnet(shapes)
    scales = _scales(shapes)
    is_darknet = f"{_BODY}res1.bypass.weight" in shapes
    stages, version = _deformable(shapes, re.escape(_BODY) + r"(res\d)\..*")
    _, head_version = _deformable(shapes, r"head\.(.*)")
    num_bins = _bins(shapes)
    num_anchors = _anchors(shapes)
    num_logits = int(shapes[_LOGITS][0]) if _LOGITS in shapes else None
    return ModelDescription(
        detector=_detector(shapes, num_bins),
        depth=_DARKNET_DEPTH if is_darknet else depth,
        groups=groups,
        width_per_group=width,
        scales=scales,
        is_darknet=is_darknet,
        dcn_stages=stages,
        dcn_version=version,
        has_fpn=any(key.startswith("backbone.fpn_output") for key in shapes),
        has_bottom_up_path=any(key.startswith("backbone.pan_output") for key in shapes),
        num_blocks=_count(shapes, r"backbone\.blocks\.(\d+)\.") if _ENCODER in shapes else None,
        num_convs=_count(shapes, r"head\.cls_tower\.(\d+)\.") or None,
        num_reg_convs=_count(shapes, r"head\.reg_tower\.(\d+)\.") or None,
        num_anchors=num_anchors,
        head_dcn_version=head_version,
        num_bins=num_bins,
        num_classes=None if num_logits is None else num_logits // (num_anchors or 1),
    )


def _detector(shapes: Mapping[str, Sequence[int]], num_bins: int | None) -> str | None:
    if "head.cls_star.weight" in shapes:
        return "VFNet"
    if _ENCODER in shapes and _DELTAS in shapes:
        return "YOLOF"
    if "head.refine_points.weight" in shapes:
        return "RepPoints"
    if "head.levels.0.deltas.weight" in shapes:
        return "SSD VGG16" if f"{_BODY}fc7.weight" in shapes else "SSD"
    return None if num_bins is None else "GFL"


def _count(shapes: Mapping[str, Sequence[int]], pattern: str) -> int:
    """How many different numbers stand in group 1 of ``pattern``."""
    return len({m[1] for key in shapes if (m := re.match(pattern, key))})


def _anchors(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Anchors for each location: four deltas for each of them."""
    return int(shapes[_DELTAS][0]) // 4 if _DELTAS in shapes else None


def _bins(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Bins of each of the four sides; a side of one or two numbers is no distribution."""
    channels = int(shapes.get("head.reg.weight", (0,))[0])
    return channels // 4 if channels % 4 == 0 and channels > 8 else None


def _resnet(shapes: Mapping[str, Sequence[int]]) -> tuple[str | None, int | None, int | None]:
    """Depth, groups and width per group of a Detectron2 ResNet; Res2Net has no groups."""
    blocks: dict[str, set[str]] = {}
    for key in shapes:
        if m := re.match(re.escape(_BODY) + r"res([2-5])\.(\d+)\.", key):
            blocks.setdefault(m[1], set()).add(m[2])
    if sorted(blocks) != ["2", "3", "4", "5"]:
        return None, None, None
    counts = tuple(len(blocks[stage]) for stage in "2345")
    depth = _BOTTLENECK_DEPTHS.get(counts, _odd_depth(counts))
    first = f"{_BODY}res2.0."
    if f"{first}convs.0.weight" in shapes:
        return depth, None, int(shapes[f"{first}convs.0.weight"][0])
    if f"{first}conv2.weight" not in shapes or f"{first}conv1.weight" not in shapes:
        return None, None, None
    if f"{first}conv3.weight" not in shapes:
        return _BASIC_DEPTHS.get(counts, _odd_depth(counts)), 1, None
    width = int(shapes[f"{first}conv2.weight"][1])
    groups = int(shapes[f"{first}conv1.weight"][0]) // max(width, 1)
    return depth, groups, width


def _scales(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Parts of Res2Net's bottlenecks: one more than they have 3x3 convolutions."""
    convs = _count(shapes, re.escape(_BODY) + r"res2\.0\.convs\.(\d+)\.weight")
    return convs + 1 if convs else None


def _odd_depth(counts: Sequence[int]) -> str:
    return "(" + ",".join(map(str, counts)) + " blocks)"


def _deformable(shapes: Mapping[str, Sequence[int]], pattern: str) -> tuple[tuple[str, ...], int]:
    """Where deformable convolutions are (group 1 of ``pattern``) and their version.

    A 3x3 kernel has 9 taps: 18 offset channels in version 1, 27 with the modulation masks of
    version 2 (times the number of deformable groups).
    """
    where: list[str] = []
    channels = 0
    for key, shape in shapes.items():
        m = re.fullmatch(pattern + r"\.conv_offset\.weight", key)
        if m:
            channels = int(shape[0])
            if m[1] not in where:
                where.append(m[1])
    if not where:
        return (), 0
    return tuple(sorted(where)), 2 if channels % 27 == 0 else 1
