"""Backbones from yacs keys: what each key does."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN, build_backbone
from torch import nn
from vfnet_yolof.layers.deform_conv import DeformConvPack
from vfnet_yolof.modeling.necks import PAFPNX, DilatedEncoder
from vfnet_yolof.modeling.yacs import get_cfg_with_keys

NARROW = (
    *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.STEM_OUT_CHANNELS", 8),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "StaticBN"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS", 64),
    *("MODEL.DARKNET.STEM_OUT_CHANNELS", 4),
)


def built(name: str, *options: Any) -> nn.Module:
    cfg: CfgNode = get_cfg_with_keys()
    cfg.MODEL.BACKBONE.NAME = f"build_vfnet_yolof_{name}_backbone"
    cfg.merge_from_list([*NARROW, *options])
    return build_backbone(cfg)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("res2net_fpn", FPN, ()), ("res2net_pafpnx", PAFPNX, ("MODEL.FPN.NORM", "GN"))],
)
def test_res2net(name: str, kind: type, options: tuple) -> None:
    model = built(
        name,
        *options,
        *("MODEL.RES2NET.BASE_WIDTH", 32, "MODEL.RES2NET.SCALES", 3),
        *("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True]),
        *("MODEL.RESNETS.DEFORM_MODULATED", False, "MODEL.BACKBONE.FREEZE_AT", 3),
    )
    assert type(model) is kind
    assert list(model.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
    assert {s.channels for s in model.output_shape().values()} == {64}
    body = model.bottom_up
    assert [c.weight.shape[0] for c in body.res2[0].convs] == [8, 8]  # 32 of 64, two of three
    assert {type(c) for c in body.res5[1].convs} == {DeformConvPack}
    assert not any(isinstance(m, DeformConvPack) for m in body.res4.modules())
    assert isinstance(body.res3[0].conv1.norm, FrozenBatchNorm2d)
    assert not isinstance(body.res4[0].conv1.norm, FrozenBatchNorm2d)
    outputs = model(torch.randn(1, 3, 128, 128))
    assert [x.shape[-1] for x in outputs.values()] == [16, 8, 4, 2, 1]


def test_cspdarknet() -> None:
    options = (
        *("MODEL.DARKNET.NORM", "naiveSyncBN", "MODEL.DARKNET.ACTIVATION", "LeakyReLU"),
        *("MODEL.DARKNET.RES5_DILATION", 2, "MODEL.BACKBONE.FREEZE_AT", 0),
    )
    model = built("cspdarknet_dilated", *options)
    assert isinstance(model, DilatedEncoder)
    assert [s.stride for s in model.output_shape().values()] == [16]
    body = model.bottom_up
    assert body.res5.down.dilation == (2, 2)
    assert isinstance(body.res1.fuse.activation, nn.LeakyReLU)
    assert type(body.stem.conv.norm).__name__ == "NaiveSyncBatchNorm"
    assert body.res1.fuse.norm.eps == 1e-4
    frozen = built("cspdarknet_dilated").bottom_up  # Detectron2's FREEZE_AT is 2
    assert not any(p.requires_grad for p in [*frozen.stem.parameters(), *frozen.res2.parameters()])
    assert all(p.requires_grad for p in frozen.res3.parameters())
    assert isinstance(frozen.res3.fuse.activation, nn.Mish)


def test_unknown_values_are_refused() -> None:
    with pytest.raises(ValueError, match="res5_dilation"):
        built("cspdarknet_dilated", "MODEL.DARKNET.RES5_DILATION", 3)
