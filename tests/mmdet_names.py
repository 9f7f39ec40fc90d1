"""State dicts with the names of MMDetection's detectors and few channels."""

import torch
from torch import Tensor

Shape = tuple[int, ...]

NORM = ("weight", "bias", "running_mean", "running_var")


def norm(name: str, size: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.{part}": (size,) for part in NORM}
    return shapes | {f"{name}.num_batches_tracked": ()}


def block(prefix: str, middle: int, groups: int, offsets: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{prefix}.conv1.weight": (middle, 8, 1, 1),
        f"{prefix}.conv2.weight": (middle, middle // groups, 3, 3),
        f"{prefix}.conv3.weight": (8, middle, 1, 1),
    }
    if offsets:
        shapes[f"{prefix}.conv2.conv_offset.weight"] = (offsets, middle, 3, 3)
        shapes[f"{prefix}.conv2.conv_offset.bias"] = (offsets,)
    for i, size in enumerate((middle, middle, 8), start=1):
        shapes |= norm(f"{prefix}.bn{i}", size)
    if prefix.endswith(".0"):
        shapes[f"{prefix}.downsample.0.weight"] = (8, 8, 1, 1)
        shapes |= norm(f"{prefix}.downsample.1", 8)
    return shapes


def towers(num_convs: int, dcn: bool, size: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i in range(num_convs):
        for prefix in (f"bbox_head.cls_convs.{i}", f"bbox_head.reg_convs.{i}"):
            shapes[f"{prefix}.conv.weight"] = (size, size, 3, 3)
            if dcn and i == num_convs - 1:
                shapes[f"{prefix}.conv.conv_offset.weight"] = (27, size, 3, 3)
                shapes[f"{prefix}.conv.conv_offset.bias"] = (27,)
            shapes |= {f"{prefix}.gn.weight": (size,), f"{prefix}.gn.bias": (size,)}
    return shapes


def vfnet_head(num_convs: int, dcn: bool, num_classes: int, size: int) -> dict[str, Shape]:
    shapes = towers(num_convs, dcn, size)
    for part in ("conv.weight", "gn.weight", "gn.bias"):
        shapes[f"bbox_head.vfnet_reg_conv.{part}"] = (size,)
    for name in ("vfnet_reg_refine_dconv", "vfnet_cls_dconv"):
        shapes[f"bbox_head.{name}.weight"] = (size, size, 3, 3)
    for name, out in (("vfnet_reg", 4), ("vfnet_reg_refine", 4), ("vfnet_cls", num_classes)):
        shapes[f"bbox_head.{name}.weight"] = (out, size, 3, 3)
        shapes[f"bbox_head.{name}.bias"] = (out,)
    for i in range(5):
        shapes |= {f"bbox_head.scales.{i}.scale": (), f"bbox_head.scales_refine.{i}.scale": ()}
    return shapes


def gfl_head(num_convs: int, bins: int, num_classes: int, size: int) -> dict[str, Shape]:
    shapes = towers(num_convs, False, size)
    for name, out in (("gfl_cls", num_classes), ("gfl_reg", 4 * bins)):
        shapes |= {f"bbox_head.{name}.weight": (out, size, 3, 3), f"bbox_head.{name}.bias": (out,)}
    for i in range(5):
        shapes[f"bbox_head.scales.{i}.scale"] = ()
    return shapes | {"bbox_head.integral.project": (bins,)}


def body(
    blocks=(3, 4, 6, 3), *, groups=1, width=4, dcn_stages=(), offset_channels=27
) -> dict[str, Shape]:
    """Backbone and neck."""
    shapes: dict[str, Shape] = {"backbone.conv1.weight": (8, 3, 7, 7)}
    shapes |= norm("backbone.bn1", 8)
    for stage, count in enumerate(blocks, start=1):
        middle = groups * width * 2 ** (stage - 1)
        offsets = offset_channels if stage in dcn_stages else 0
        for i in range(count):
            shapes |= block(f"backbone.layer{stage}.{i}", middle, groups, offsets)
    for name in [f"lateral_convs.{i}" for i in range(3)] + [f"fpn_convs.{i}" for i in range(5)]:
        shapes[f"neck.{name}.conv.weight"] = (8, 8, 3, 3)
        shapes[f"neck.{name}.conv.bias"] = (8,)
    return shapes


def tensors(shapes: dict[str, Shape]) -> dict[str, Tensor]:
    """A different value for each name."""
    return {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items())}


def mmdet_vfnet(
    blocks=(3, 4, 6, 3), *, num_convs=3, head_dcn=False, num_classes=80, **options
) -> dict[str, Tensor]:
    """VFNet with few channels; ``options`` as for :func:`body`."""
    return tensors(body(blocks, **options) | vfnet_head(num_convs, head_dcn, num_classes, 8))


def mmdet_gfl(
    blocks=(3, 4, 6, 3), *, num_convs=4, bins=17, num_classes=80, **options
) -> dict[str, Tensor]:
    """GFL with few channels; ``options`` as for :func:`body`."""
    return tensors(body(blocks, **options) | gfl_head(num_convs, bins, num_classes, 8))
