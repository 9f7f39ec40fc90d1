"""VFNet without its three components, as its authors have it, and its weights here."""

import pytest
import torch
from detectron2.config import instantiate
from mmdet_names import body, tensors, towers
from tiny import shrink
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.checkpoint import CheckpointError, convert_state_dict
from vfnet_yolof.config.packaged import load_config

ROWS = ("ablations/vfnet_t3_fl.py", "ablations/vfnet_t3_vfl.py")
REG_DENOM = (64, 128, 256, 512, 1024)


def raw_head(size: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes: three convolutions in a tower, and one more of its own name for each
    output."""
    shapes = towers(3, dcn=False, size=size)
    for kind, out in (("cls", num_classes), ("reg", 4)):
        shapes[f"bbox_head.vfnet_{kind}_conv.conv.weight"] = (size, size, 3, 3)
        for part in ("weight", "bias"):
            shapes[f"bbox_head.vfnet_{kind}_conv.gn.{part}"] = (size,)
        shapes[f"bbox_head.vfnet_{kind}.weight"] = (out, size, 3, 3)
        shapes[f"bbox_head.vfnet_{kind}.bias"] = (out,)
    return shapes | {f"bbox_head.scales.{i}.scale": () for i in range(5)}


def literal_head(weights: dict[str, Tensor], x: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Logits, and distances in pixels, of the authors' head."""

    def block(name: str, x: Tensor) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.conv.weight"], padding=1)
        return F.group_norm(x, 32, weights[f"{name}.gn.weight"], weights[f"{name}.gn.bias"]).relu()

    def output(kind: str) -> Tensor:
        feature = x
        for i in range(3):
            feature = block(f"bbox_head.{kind}_convs.{i}", feature)
        feature = block(f"bbox_head.vfnet_{kind}_conv", feature)
        name = f"bbox_head.vfnet_{kind}"
        return F.conv2d(feature, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    scale = weights[f"bbox_head.scales.{level}.scale"]
    return output("cls"), (scale * output("reg")).exp() * REG_DENOM[level]


def small_model(row: str) -> nn.Module:
    """64 channels and three classes; four convolutions in a tower, as the row has them."""
    config = shrink(load_config(row))
    config.model.head.num_convs = 4
    return instantiate(config.model)


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_predictions_are_those_of_the_authors_head(row: str) -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = {
        name: torch.randn(shape, generator=generator) * (0.05 if len(shape) == 4 else 0.5)
        for name, shape in raw_head(size=64, num_classes=3).items()
    }
    model = small_model(row)
    names = {k for k in model.state_dict() if k.startswith("head.")}
    converted, _ = convert_state_dict(theirs | tensors(body()))
    ours = {k: v for k, v in converted.items() if k.startswith("head.")}
    assert ours.keys() == names
    model.load_state_dict(ours, strict=False)
    features = [torch.randn(2, 64, n, n + 1, generator=generator) for n in (8, 4, 3, 2, 1)]
    got = model.head(features)
    for level, feature in enumerate(features):
        logits, ltrb = literal_head(theirs, feature, level)
        torch.testing.assert_close(got.logits[level], logits, rtol=1e-4, atol=1e-5)
        sides = got.sides[level].permute(0, 2, 3, 1)
        distances = model.decode_sides(sides, model.points.strides[level]).permute(0, 3, 1, 2)
        torch.testing.assert_close(distances, ltrb, rtol=1e-4, atol=1e-3)


def test_every_tensor_is_accounted_for() -> None:
    source = tensors(body() | raw_head(size=8, num_classes=80))
    converted, report = convert_state_dict(source)
    assert len(converted) == len(source) == report.num_source
    assert report.layout == "MMDetection raw VFNet"
    renamed = report.renamed
    assert renamed["bbox_head.vfnet_cls_conv.conv.weight"] == "head.cls_tower.3.conv.weight"
    assert renamed["bbox_head.vfnet_reg_conv.gn.bias"] == "head.reg_tower.3.norm.bias"
    assert renamed["bbox_head.vfnet_cls.bias"] == "head.cls_logits.bias"
    assert renamed["bbox_head.vfnet_reg.weight"] == "head.reg.weight"


def test_a_fourth_convolution_in_the_towers_has_no_place() -> None:
    """Two tensors for one name are refused, whichever was meant."""
    fourth = towers(4, dcn=False, size=8)
    with pytest.raises(CheckpointError, match=r"would be renamed to 'head\.(cls|reg)_tower\.3"):
        convert_state_dict(tensors(body() | raw_head(8, 80) | fourth))
