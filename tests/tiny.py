"""Detectors small enough to train in a test, and pictures for them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor, nn
from vfnet_yolof.config.packaged import load_config

NUM_CLASSES = 3
BOXES = ((4.0, 4.0, 40.0, 36.0), (30.0, 20.0, 60.0, 62.0))  # xyxy px, in a 64 x 64 picture


def shrink(config: DictConfig) -> DictConfig:
    """A packaged config with a narrow ResNet-18, pyramid and towers, and three classes.

    64 channels: 32 would be one for each group of group norm, which cannot normalise one cell.
    """
    model = shrink_bottom_up(config)
    model.backbone.out_channels = model.head.conv_channels = 64
    model.head.num_convs = 1
    return config


def shrink_yolof(config: DictConfig) -> DictConfig:
    """A packaged YOLOF with a narrow ResNet-18, encoder and head, and three classes.

    Four anchors, of 16 to 128 px, at each of the 4 x 4 cells of a 64 x 64 picture.
    """
    model = shrink_bottom_up(config)
    model.backbone.bottom_up.out_features = ["res4"]
    model.backbone.in_feature = "res4"
    model.backbone.channels = model.head.conv_channels = 32
    model.backbone.mid_channels = 8
    model.backbone.dilations = [1, 2]
    model.head.num_anchors = 4
    model.anchor_generator.sizes = [[16, 32, 64, 128]]
    model.anchor_generator.strides = [16]
    model.box_coder.center_clamp = 16.0
    return config


def shrink_bottom_up(config: DictConfig) -> DictConfig:
    """The config's model, with a narrow ResNet-18 and three classes."""
    config.model.num_classes = NUM_CLASSES
    bottom_up = config.model.backbone.bottom_up
    bottom_up.depth, bottom_up.stem_channels, bottom_up.res2_channels = 18, 8, 8
    bottom_up.norm, bottom_up.freeze_at = "StaticBN", 0
    return config.model


def tiny_model(
    name: str = "vfnet/vfnet_small_shapes.py",
    seed: int = 0,
    shrink: Callable[[DictConfig], DictConfig] = shrink,
    **options: Any,
) -> nn.Module:
    """A shrunk model of a packaged config; ``options`` are dotted keys below ``model``."""
    config = shrink(load_config(name))
    for key, value in options.items():
        node, _, leaf = key.replace("__", ".").rpartition(".")
        parent = config.model
        for part in filter(None, node.split(".")):
            parent = parent[part]
        parent[leaf] = value
    torch.manual_seed(seed)
    return instantiate(config.model)


def tiny_vfnet(**options: Any) -> nn.Module:
    return tiny_model("vfnet/vfnet_small_shapes.py", **options)


def tiny_atss(**options: Any) -> nn.Module:
    return tiny_model("ablations/vfnet_t3_fcos_atss.py", **options)


def tiny_gfl(**options: Any) -> nn.Module:
    return tiny_model("gfl/gfl_small_shapes.py", **options)


def tiny_yolof(**options: Any) -> nn.Module:
    return tiny_model("yolof/yolof_small_shapes.py", shrink=shrink_yolof, **options)


def shrink_peer(config: DictConfig) -> DictConfig:
    """RetinaNet, ATSS, FoveaBox or RepPoints of MMDetection, made small as by :func:`shrink`."""
    model = shrink_bottom_up(config)
    model.backbone.out_channels = model.head.conv_channels = 64
    for name in ("num_convs", "num_cls_convs", "num_reg_convs"):
        if name in model.head:
            model.head[name] = 1
    if model.backbone.top_block.in_feature == "res5":
        model.backbone.top_block.in_channels = 64
    return config


def shrink_ssd(config: DictConfig) -> DictConfig:
    """SSD512 with a narrow VGG16; its pictures need more than 256 pixels on both sides."""
    config.model.num_classes = NUM_CLASSES
    config.model.backbone.bottom_up.width = 4
    config.model.backbone.extra_channels = [16] * 5
    config.model.head.in_channels = [32, 64, *[16] * 5]
    return config


def tiny_retinanet(**options: Any) -> nn.Module:
    return tiny_model("baselines/retinanet_mmdet_r50_fpn_1x.py", shrink=shrink_peer, **options)


def tiny_published_atss(**options: Any) -> nn.Module:
    return tiny_model("atss/atss_r50_fpn_1x.py", shrink=shrink_peer, **options)


def tiny_foveabox(**options: Any) -> nn.Module:
    return tiny_model("foveabox/foveabox_r50_fpn_1x.py", shrink=shrink_peer, **options)


def tiny_reppoints(**options: Any) -> nn.Module:
    return tiny_model("reppoints/reppoints_r50_fpn_1x.py", shrink=shrink_peer, **options)


def tiny_ssd(**options: Any) -> nn.Module:
    return tiny_model("ssd/ssd512_vgg16.py", shrink=shrink_ssd, **options)


def picture(
    boxes: Sequence[Sequence[float]] | Tensor = BOXES,
    classes: Sequence[int] | None = None,
    size: tuple[int, int] = (64, 64),
    seed: int = 0,
) -> dict[str, Any]:
    """One of Detectron2's input dicts: noise of ``size`` (H, W), brighter inside the boxes."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 96, (3, *size), generator=generator, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes.long().tolist()[:10]):
        image[number % 3, y1:y2, x1:x2] += 128
    labels = torch.as_tensor(
        [i % NUM_CLASSES for i in range(len(boxes))] if classes is None else classes
    ).long()
    return {
        "image": image,
        "height": size[0],
        "width": size[1],
        "instances": Instances(size, gt_boxes=Boxes(boxes), gt_classes=labels),
    }


def empty_picture(size: tuple[int, int] = (64, 64), seed: int = 1) -> dict[str, Any]:
    return picture([], size=size, seed=seed)
