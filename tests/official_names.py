"""Names and full shapes of published checkpoints' tensors, without their values.

Written down from the layouts of MMDetection's modules and those of YOLOF's authors, independently
of the converter's tables.
"""

import torch
from torch import Tensor

Shape = tuple[int, ...]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def norm(name: str, size: int) -> dict[str, Shape]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (size,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def group_norm(name: str, size: int) -> dict[str, Shape]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def conv(name: str, out: int, inside: int, kernel: int = 1, bias: bool = False) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (out, inside, kernel, kernel)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def offsets(name: str, channels: int, version: int) -> dict[str, Shape]:
    return conv(f"{name}.conv_offset", {1: 18, 2: 27}[version], channels, 3, bias=True)


def resnet(
    depth: int, *, groups: int = 1, width: int = 64, dcn: tuple[int, ...] = (), version: int = 2
) -> dict[str, Shape]:
    """MMDetection's ResNet or ResNeXt; ``dcn``: stages counted from 1."""
    shapes = conv("backbone.conv1", 64, 3, 7) | norm("backbone.bn1", 64)
    channels = 64
    for stage, count in enumerate(BLOCKS[depth], start=1):
        middle, out = groups * width * 2 ** (stage - 1), 256 * 2 ** (stage - 1)
        for i in range(count):
            name = f"backbone.layer{stage}.{i}"
            shapes |= conv(f"{name}.conv1", middle, channels) | norm(f"{name}.bn1", middle)
            shapes |= conv(f"{name}.conv2", middle, middle // groups, 3)
            if stage in dcn:
                shapes |= offsets(f"{name}.conv2", middle, version)
            shapes |= norm(f"{name}.bn2", middle)
            shapes |= conv(f"{name}.conv3", out, middle) | norm(f"{name}.bn3", out)
            if i == 0:
                shapes |= conv(f"{name}.downsample.0", out, channels)
                shapes |= norm(f"{name}.downsample.1", out)
            channels = out
    return shapes


def res2net(depth: int, *, dcn: tuple[int, ...] = ()) -> dict[str, Shape]:
    """MMDetection's Res2Net v1d, 26w x 4s."""
    shapes: dict[str, Shape] = {}
    for index, (inside, out) in enumerate(((3, 32), (32, 32), (32, 64))):
        shapes |= conv(f"backbone.stem.{3 * index}", out, inside, 3)
        shapes |= norm(f"backbone.stem.{3 * index + 1}", out)
    channels = 64
    for stage, count in enumerate(BLOCKS[depth], start=1):
        part, out = 26 * 2 ** (stage - 1), 256 * 2 ** (stage - 1)
        for i in range(count):
            name = f"backbone.layer{stage}.{i}"
            shapes |= conv(f"{name}.conv1", 4 * part, channels) | norm(f"{name}.bn1", 4 * part)
            shapes |= conv(f"{name}.conv3", out, 4 * part) | norm(f"{name}.bn3", out)
            if i == 0:
                shapes |= conv(f"{name}.downsample.1", out, channels)
                shapes |= norm(f"{name}.downsample.2", out)
            for j in range(3):
                shapes |= conv(f"{name}.convs.{j}", part, part, 3)
                if stage in dcn:
                    shapes |= offsets(f"{name}.convs.{j}", part, 2)
            for j in range(3):
                shapes |= norm(f"{name}.bns.{j}", part)
            channels = out
    return shapes


def fpn() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i, channels in enumerate((512, 1024, 2048)):
        shapes |= conv(f"neck.lateral_convs.{i}.conv", 256, channels, bias=True)
    for i in range(5):
        shapes |= conv(f"neck.fpn_convs.{i}.conv", 256, 256, 3, bias=True)
    return shapes


def pafpnx() -> dict[str, Shape]:
    """VFNet-X's neck: group norm after every convolution but the lateral ones."""
    shapes: dict[str, Shape] = {}
    for i, channels in enumerate((512, 1024, 2048)):
        shapes |= conv(f"neck.lateral_convs.{i}.conv", 384, channels, bias=True)
    names = [f"fpn_convs.{i}" for i in range(5)] + [f"downsample_convs.{i}" for i in range(2)]
    for name in names + [f"pafpn_convs.{i}" for i in range(3)]:
        shapes |= conv(f"neck.{name}.conv", 384, 384, 3)
        if name.startswith("pafpn"):
            shapes |= offsets(f"neck.{name}.conv", 384, 2)
        shapes |= group_norm(f"neck.{name}.gn", 384)
    return shapes


def towers(num_convs: int, width: int, dcn: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for tower in ("cls_convs", "reg_convs"):
        for i in range(num_convs):
            name = f"bbox_head.{tower}.{i}"
            shapes |= conv(f"{name}.conv", width, width, 3)
            if dcn and i == num_convs - 1:
                shapes |= offsets(f"{name}.conv", width, 2)
            shapes |= group_norm(f"{name}.gn", width)
    return shapes


def scales(name: str) -> dict[str, Shape]:
    return {f"bbox_head.{name}.{i}.scale": () for i in range(5)}


def vfnet_head(
    *, num_convs: int = 3, width: int = 256, dcn: bool = False, classes: int = 80
) -> dict[str, Shape]:
    shapes = towers(num_convs, width, dcn)
    shapes |= conv("bbox_head.vfnet_reg_conv.conv", width, width, 3)
    shapes |= group_norm("bbox_head.vfnet_reg_conv.gn", width)
    shapes |= conv("bbox_head.vfnet_reg", 4, width, 3, bias=True) | scales("scales")
    shapes |= conv("bbox_head.vfnet_reg_refine_dconv", width, width, 3)
    shapes |= conv("bbox_head.vfnet_reg_refine", 4, width, 3, bias=True) | scales("scales_refine")
    shapes |= conv("bbox_head.vfnet_cls_dconv", width, width, 3)
    return shapes | conv("bbox_head.vfnet_cls", classes, width, 3, bias=True)


def gfl_head(classes: int = 80) -> dict[str, Shape]:
    shapes = towers(4, 256, False) | conv("bbox_head.gfl_cls", classes, 256, 3, bias=True)
    shapes |= conv("bbox_head.gfl_reg", 68, 256, 3, bias=True) | scales("scales")
    return shapes | {"bbox_head.integral.project": (17,)}


def encoder(blocks: int = 4, channels: int = 2048) -> dict[str, Shape]:
    """YOLOF's neck in MMDetection."""
    shapes = conv("neck.lateral_conv", 512, channels, bias=True) | norm("neck.lateral_norm", 512)
    shapes |= conv("neck.fpn_conv", 512, 512, 3, bias=True) | norm("neck.fpn_norm", 512)
    for i in range(blocks):
        name = f"neck.dilated_encoder_blocks.{i}"
        for index, (out, inside, kernel) in enumerate(
            ((128, 512, 1), (128, 128, 3), (512, 128, 1)), start=1
        ):
            shapes |= conv(f"{name}.conv{index}.conv", out, inside, kernel)
            shapes |= norm(f"{name}.conv{index}.bn", out)
    return shapes


def yolof_head(anchors: int = 5, classes: int = 80) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for tower, count in (("cls_subnet", 2), ("bbox_subnet", 4)):
        for i in range(count):
            shapes |= conv(f"bbox_head.{tower}.{i}.conv", 512, 512, 3)
            shapes |= norm(f"bbox_head.{tower}.{i}.bn", 512)
    shapes |= conv("bbox_head.cls_score", anchors * classes, 512, 3, bias=True)
    shapes |= conv("bbox_head.bbox_pred", anchors * 4, 512, 3, bias=True)
    return shapes | conv("bbox_head.object_pred", anchors, 512, 3, bias=True)


def frozen(name: str, size: int) -> dict[str, Shape]:
    """Detectron2's frozen norm has no counter."""
    return {k: v for k, v in norm(name, size).items() if not k.endswith("num_batches_tracked")}


def detectron2_resnet(depth: int) -> dict[str, Shape]:
    shapes = conv("backbone.stem.conv1", 64, 3, 7) | frozen("backbone.stem.conv1.norm", 64)
    channels = 64
    for stage, count in enumerate(BLOCKS[depth]):
        middle, out = 64 * 2**stage, 256 * 2**stage
        for i in range(count):
            name = f"backbone.res{stage + 2}.{i}"
            layers = [("conv1", middle, channels, 1), ("conv2", middle, middle, 3)]
            layers += [("conv3", out, middle, 1)] + [("shortcut", out, channels, 1)] * (i == 0)
            for part, size, inside, kernel in layers:
                shapes |= conv(f"{name}.{part}", size, inside, kernel)
                shapes |= frozen(f"{name}.{part}.norm", size)
            channels = out
    return shapes


def csp_darknet() -> dict[str, Shape]:
    """The YOLOF authors' CSPDarkNet-53."""
    shapes = conv("backbone.conv1", 32, 3, 3) | norm("backbone.bn1", 32)
    for stage, count in enumerate((1, 2, 8, 8, 4), start=1):
        inside, out = 16 * 2**stage, 32 * 2**stage
        route = out if stage == 1 else inside
        name = f"backbone.layer{stage}"
        layers = [("base_layer", out, inside, 3), ("partial_transition1", route, out, 1)]
        layers += [("stage_layers.0.downsample", route, out, 1)]
        layers += [("partial_transition2", route, route, 1), ("fuse_transition", out, 2 * route, 1)]
        for part, size, before, kernel in layers:
            shapes |= conv(f"{name}.{part}.0", size, before, kernel)
            shapes |= norm(f"{name}.{part}.1", size)
        for i in range(count):
            block = f"{name}.stage_layers.{i}"
            shapes |= conv(f"{block}.conv1", inside, route) | norm(f"{block}.bn1", inside)
            shapes |= conv(f"{block}.conv2", route, inside, 3) | norm(f"{block}.bn2", route)
    return shapes


def yolof_authors(
    backbone: dict[str, Shape], *, channels: int = 2048, blocks: int = 4, anchors: int = 5
) -> dict[str, Shape]:
    """YOLOF in its authors' repositories, on Detectron2 and on cvpods."""
    shapes: dict[str, Shape] = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)} | backbone
    shapes |= conv("encoder.lateral_conv", 512, channels, bias=True)
    shapes |= norm("encoder.lateral_norm", 512) | norm("encoder.fpn_norm", 512)
    shapes |= conv("encoder.fpn_conv", 512, 512, 3, bias=True)
    for i in range(blocks):
        for j, (out, inside, kernel) in enumerate(((128, 512, 1), (128, 128, 3), (512, 128, 1)), 1):
            name = f"encoder.dilated_encoder_blocks.{i}.conv{j}"
            shapes |= conv(f"{name}.0", out, inside, kernel, bias=True) | norm(f"{name}.1", out)
    for tower, count in (("cls_subnet", 2), ("bbox_subnet", 4)):
        for i in range(count):
            name = f"decoder.{tower}.{3 * i}"
            shapes |= conv(name, 512, 512, 3, bias=True)
            shapes |= norm(f"decoder.{tower}.{3 * i + 1}", 512)
    for name, size in (("cls_score", 80), ("bbox_pred", 4), ("object_pred", 1)):
        shapes |= conv(f"decoder.{name}", size * anchors, 512, 3, bias=True)
    return shapes | {"anchor_generator.cell_anchors.0": (anchors, 4)}


def without_values(shapes: dict[str, Shape]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
