"""The checkpoints of YOLOF's authors become ours, completely."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from golden_recipe import reference_state_dict
from torch import Tensor
from vfnet_yolof.checkpoint import (
    CheckpointError,
    CheckpointMismatchError,
    convert_checkpoint,
    convert_state_dict,
    describe,
)
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import load_config

CONFIG = "yolof/yolof_r50_c5_1x.py"
NORM = ("weight", "bias", "running_mean", "running_var")


def conv(name: str, out_channels: int, in_channels: int, kernel: int, bias: bool) -> dict:
    shapes = {f"{name}.weight": (out_channels, in_channels, kernel, kernel)}
    return shapes | ({f"{name}.bias": (out_channels,)} if bias else {})


def norm(name: str, channels: int, counter: bool) -> dict:
    shapes = {f"{name}.{part}": (channels,) for part in NORM}
    return shapes | ({f"{name}.num_batches_tracked": ()} if counter else {})


def theirs(
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    num_dilated: int = 4,
    num_anchors: int = 5,
    num_classes: int = 80,
) -> dict[str, Tensor]:
    """A state dict with the authors' names and few channels."""
    shapes: dict = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    shapes |= conv("backbone.stem.conv1", 4, 3, 7, False)
    shapes |= norm("backbone.stem.conv1.norm", 4, False)
    for stage, count in enumerate(blocks, start=2):
        for i in range(count):
            parts = [("conv1", 1), ("conv2", 3), ("conv3", 1)] + [("shortcut", 1)] * (i == 0)
            for part, kernel in parts:
                name = f"backbone.res{stage}.{i}.{part}"
                shapes |= conv(name, 64, 64, kernel, False) | norm(f"{name}.norm", 64, False)
    for part, kernel in (("lateral", 1), ("fpn", 3)):
        shapes |= conv(f"encoder.{part}_conv", 4, 4, kernel, True)
        shapes |= norm(f"encoder.{part}_norm", 4, True)
    for i in range(num_dilated):
        for j, kernel in ((1, 1), (2, 3), (3, 1)):
            name = f"encoder.dilated_encoder_blocks.{i}.conv{j}"
            shapes |= conv(f"{name}.0", 4, 4, kernel, True) | norm(f"{name}.1", 4, True)
    for tower, count in (("cls", 2), ("bbox", 4)):
        for i in range(count):
            name = f"decoder.{tower}_subnet"
            shapes |= conv(f"{name}.{3 * i}", 4, 4, 3, True)
            shapes |= norm(f"{name}.{3 * i + 1}", 4, True)
    shapes |= conv("decoder.cls_score", num_anchors * num_classes, 4, 3, True)
    shapes |= conv("decoder.bbox_pred", num_anchors * 4, 4, 3, True)
    shapes |= conv("decoder.object_pred", num_anchors, 4, 3, True)
    return {k: torch.zeros(shape) for k, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("backbone.stem.conv1.weight", "backbone.bottom_up.stem.conv1.weight"),
        ("backbone.res5.2.conv2.norm.bias", "backbone.bottom_up.res5.2.conv2.norm.bias"),
        ("encoder.lateral_conv.bias", "backbone.lateral.bias"),
        ("encoder.lateral_norm.running_var", "backbone.lateral.norm.running_var"),
        ("encoder.fpn_conv.weight", "backbone.output.weight"),
        ("encoder.fpn_norm.bias", "backbone.output.norm.bias"),
        ("encoder.dilated_encoder_blocks.3.conv2.0.bias", "backbone.blocks.3.conv2.bias"),
        ("encoder.dilated_encoder_blocks.0.conv3.1.weight", "backbone.blocks.0.conv3.norm.weight"),
        ("decoder.cls_subnet.3.weight", "head.cls_tower.1.conv.weight"),
        ("decoder.cls_subnet.4.running_mean", "head.cls_tower.1.norm.running_mean"),
        ("decoder.bbox_subnet.9.bias", "head.reg_tower.3.conv.bias"),
        ("decoder.cls_score.bias", "head.cls_logits.bias"),
        ("decoder.bbox_pred.weight", "head.deltas.weight"),
        ("decoder.object_pred.weight", "head.objectness.weight"),
    ],
)
def test_names(name: str, ours: str):
    source = theirs()
    converted, report = convert_state_dict(source)
    assert report.layout == "Detectron2 or cvpods YOLOF"
    assert report.renamed[name] == ours
    assert converted[ours] is source[name]
    assert set(report.dropped) == {"pixel_mean", "pixel_std"}
    assert len(converted) == len(source) - 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {},
            "YOLOF R-50, 4 blocks in the encoder, 2 and 4 convolutions in the towers, "
            "5 anchors per location, 80 classes",
        ),
        (
            {"blocks": (3, 4, 23, 3), "num_dilated": 8, "num_anchors": 6, "num_classes": 3},
            "YOLOF R-101, 8 blocks in the encoder, 2 and 4 convolutions in the towers, "
            "6 anchors per location, 3 classes",
        ),
        (
            {"num_dilated": 0},
            "YOLOF R-50, 0 blocks in the encoder, 2 and 4 convolutions in the towers, "
            "5 anchors per location, 80 classes",
        ),
    ],
)
def test_what_a_checkpoint_looks_like(options: dict, text: str):
    assert convert_state_dict(theirs(**options))[1].description == text


def test_other_numbers_of_anchors_are_refused():
    target, _ = convert_state_dict(theirs())
    message = r"(?s)6 anchors.*builds YOLOF R-50, .*5 anchors.*deltas.weight \(24, .*\(20, "
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(theirs(num_anchors=6), target)


def test_unknown_tensors_are_refused():
    """Also a weight where the authors' towers have their activation."""
    for name in ("decoder.cls_subnet.2.gain", "encoder.extra.weight"):
        with pytest.raises(CheckpointError, match=f"1 of .* are not known: {name}"):
            convert_state_dict(theirs() | {name: torch.zeros(4)})
    target, _ = convert_state_dict(theirs())
    message = r"1 have no place in the model: head.cls_tower.0.activation.weight"
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(theirs() | {"decoder.cls_subnet.2.weight": torch.zeros(4)}, target)


@pytest.mark.golden
def test_reference_names_fill_our_model(golden: Path, tmp_path: Path):
    source = reference_state_dict(golden, "yolof_r50_c5", "yolof_models")
    model = instantiate(load_config(CONFIG).model)
    torch.save({"model": source, "iteration": 22499}, tmp_path / "theirs.pth")
    result, report = convert_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.pth", model)
    assert result["model"].keys() == model.state_dict().keys()
    assert len(report.renamed) == len(source)
    model.load_state_dict(result["model"])
    ours = model.state_dict()
    for name, our_name in report.renamed.items():
        assert torch.equal(ours[our_name], source[name]), name


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        ({"blocks": (3, 4, 23, 3)}, ["model.backbone.bottom_up.depth=101"]),
        (
            {"num_dilated": 8, "num_anchors": 6},
            [
                "model.backbone.dilations=[1,2,3,4,5,6,7,8]",
                "model.head.num_anchors=6",
                "model.anchor_generator.sizes=[[16,32,64,128,256,512]]",
            ],
        ),
    ],
)
def test_names_of_other_models(options: dict, overrides: list[str]):
    with torch.device("meta"):
        model = read_inference_config(CONFIG, overrides).build_model()
    _, report = convert_state_dict(theirs(**options), model.state_dict().keys())
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert report.description == str(describe(shapes))
