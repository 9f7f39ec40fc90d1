"""The yacs keys of the compared detectors build what their lazy configs build."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from torch import nn
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.losses import MinedCrossEntropy, QualityFocalLoss, VarifocalLoss
from vfnet_yolof.modeling.yacs import get_cfg_with_keys

PYRAMID = "build_vfnet_yolof_resnet_fpn_c5_backbone"
RESNET = (
    *("MODEL.RESNETS.NORM", "StaticBN", "MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
)
# Lazy config: name in the registry, name of its keys, backbone, options.
DETECTORS: dict[str, tuple[str, str, str, tuple[Any, ...]]] = {
    "baselines/retinanet_mmdet_r50_fpn_1x": ("MMDetRetinaNet", "MMDET_RETINANET", PYRAMID, RESNET),
    "foveabox/foveabox_r50_fpn_1x": ("FoveaBox", "FOVEABOX", PYRAMID, RESNET),
    "reppoints/reppoints_r50_fpn_1x": (
        "RepPoints",
        "REPPOINTS",
        PYRAMID,
        (*RESNET, "MODEL.FPN.NORM", "GN"),
    ),
    "atss/atss_r50_fpn_1x": (
        "ATSS",
        "ATSS",
        "build_vfnet_yolof_resnet_fpn_no_relu_backbone",
        (*RESNET, "MODEL.ATSS.BOXES", "anchor_deltas", "MODEL.ATSS.MIN_CENTERNESS_SUM", 1.0),
    ),
    "ssd/ssd512_vgg16": (
        "SSD",
        "SSD",
        "build_vfnet_yolof_ssd_vgg16_backbone",
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0], "TEST.DETECTIONS_PER_IMAGE", 200),
    ),
}


def yacs_model(name: str, *options: Any) -> nn.Module:
    detector, _, backbone, own = DETECTORS[name]
    cfg: CfgNode = get_cfg_with_keys()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", detector),
            *("MODEL.BACKBONE.NAME", backbone, "INPUT.FORMAT", "RGB"),
            *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], *own, *options),
        ]
    )
    return build_model(cfg)


def settings(part: Any) -> Any:
    """Public attributes, down to the numbers; of modules their text."""
    if isinstance(part, nn.Module):
        return repr(part)
    if not hasattr(part, "__dict__"):
        return list(part) if isinstance(part, tuple | list) else part
    return {k: settings(v) for k, v in vars(part).items()} | {"": type(part)}


@pytest.mark.parametrize("name", DETECTORS)
def test_is_the_model_of_the_lazy_config(name: str) -> None:
    lazy, yacs = instantiate(load_config(f"{name}.py").model), yacs_model(name)
    assert repr(yacs) == repr(lazy)
    assert {k: v.shape for k, v in yacs.state_dict().items()} == {
        k: v.shape for k, v in lazy.state_dict().items()
    }
    trained = {k for k, p in lazy.named_parameters() if p.requires_grad}
    assert {k for k, p in yacs.named_parameters() if p.requires_grad} == trained
    kept = {k: v for k, v in vars(lazy).items() if not k.startswith("_") and k != "training"}
    assert {"assigner", "cls_loss", "postprocessor", "num_classes"} <= kept.keys()
    for key, value in kept.items():
        assert settings(getattr(yacs, key)) == settings(value), key
    for level, own in zip(
        getattr(lazy, "anchor_generator", torch.nn.Module()).buffers(),
        getattr(yacs, "anchor_generator", torch.nn.Module()).buffers(),
        strict=True,
    ):
        assert torch.equal(level, own)
    assert torch.equal(yacs.pixel_mean, lazy.pixel_mean)
    assert torch.equal(yacs.pixel_std, lazy.pixel_std)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_classification_loss_is_a_choice(name: str) -> None:
    _, keys, _, _ = DETECTORS[name]
    qfl = yacs_model(name, f"MODEL.{keys}.CLS_LOSS", "QFL").cls_loss
    assert isinstance(qfl, QualityFocalLoss) and qfl.beta == 2.0
    vfl = yacs_model(name, f"MODEL.{keys}.CLS_LOSS", "VFL").cls_loss
    assert isinstance(vfl, VarifocalLoss)
    leaves_out = keys in ("MMDET_RETINANET", "REPPOINTS")
    assert (vfl.padding_is_negative, vfl.min_iou) == (not leaves_out, 0.0 if leaves_out else 1e-6)
    with pytest.raises(KeyError, match=f"MODEL.{keys}.CLS_LOSS must be one of .*got 'GHM'"):
        yacs_model(name, f"MODEL.{keys}.CLS_LOSS", "GHM")


def test_ssd_with_sigmoids_has_no_background() -> None:
    assert isinstance(yacs_model("ssd/ssd512_vgg16").cls_loss, MinedCrossEntropy)
    head = yacs_model("ssd/ssd512_vgg16", "MODEL.SSD.CLS_LOSS", "QFL").head
    assert not head.has_background
    assert head.levels[0].cls_logits.out_channels == 4 * 80
    bias = head.levels[0].cls_logits.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_detectron2s_own_retinanet_keeps_its_name() -> None:
    assert META_ARCH_REGISTRY.get("RetinaNet").__module__.startswith("detectron2.")
