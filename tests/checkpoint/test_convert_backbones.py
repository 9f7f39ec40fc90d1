"""ImageNet backbones of other projects, from their names to a detector that starts with them."""

import pickle
from pathlib import Path
from typing import Any

import convert_checkpoint
import pytest
import torch
import torchvision
from backbone_names import (
    caffe2_name,
    open_mmlab_res2net,
    torchvision_name,
    yolof_authors_name,
)
from detectron2.layers import FrozenBatchNorm2d
from tiny import tiny_vfnet
from torch import Tensor, nn
from vfnet_yolof.checkpoint import CheckpointError, CheckpointMismatchError, load_checkpoint
from vfnet_yolof.checkpoint.backbones import (
    convert_backbone,
    convert_backbone_state_dict,
    describe_pixels,
    is_backbone,
)
from vfnet_yolof.checkpoint.rules import ConversionReport
from vfnet_yolof.engine.fine_tune import load_for_fine_tuning, load_initial_weights
from vfnet_yolof.modeling.backbones import CSPDarkNet, build_res2net, build_resnet

OURS = "backbone.bottom_up."


class Detector(nn.Module):
    """What a detector looks like to a converter: a backbone below a neck, and a head."""

    def __init__(self, bottom_up: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": bottom_up, "fpn_output3": nn.Conv2d(1, 1, 1)})
        self.head = nn.Conv2d(1, 1, 1)


def resnet(depth: int = 50, **options: Any) -> nn.Module:
    return build_resnet(
        depth, **{"stem_channels": 8, "width_per_group": 8, "res2_channels": 16, **options}
    )


def randomise(model: nn.Module) -> nn.Module:
    """Factors, offsets and statistics of norms that differ from layer to layer."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def body(detector: nn.Module) -> dict[str, Tensor]:
    return {k.removeprefix(OURS): v for k, v in detector.state_dict().items() if OURS in k}


def test_torchvisions_resnet_computes_the_same() -> None:
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.resnet18(weights=None)).eval()
    detector = Detector(build_resnet(18, out_features=["res3", "res5"])).eval()
    converted, report = convert_backbone_state_dict(theirs.state_dict(), detector)
    assert {k for k in report.dropped if "fc" in k} == {"fc.weight", "fc.bias"}
    assert report.num_source == len(theirs.state_dict())
    assert report.unmatched == []
    detector.load_state_dict(converted, strict=False)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        got = detector.backbone["bottom_up"](x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        c3 = theirs.layer2(theirs.layer1(y))
        c5 = theirs.layer4(theirs.layer3(c3))
    torch.testing.assert_close(got["res3"], c3)
    torch.testing.assert_close(got["res5"], c5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", {"depth": 50}),
        ("resnet101", {"depth": 101, "deform_stages": [3, 4, 5]}),
        ("resnext101_64x4d", {"depth": 101, "num_groups": 64, "width_per_group": 4}),
    ],
)
def test_every_tensor_of_torchvisions_larger_models(name: str, options: dict) -> None:
    with torch.device("meta"):
        source = getattr(torchvision.models, name)(weights=None).state_dict()
        detector = Detector(build_resnet(**options))
    converted, report = convert_backbone_state_dict(source, detector)
    assert converted.keys() == {k for k in detector.state_dict() if k.startswith(OURS)}
    assert report.num_source == len(source)
    offsets = {k for k in converted if ".conv_offset." in k}
    assert bool(offsets) == ("deform_stages" in options)
    assert all(not converted[k].any() for k in offsets)
    assert offsets <= report.added.keys()


def test_res2net_computes_what_an_independent_implementation_does() -> None:
    """timm has the names of the Res2Net authors' own files, with a deep stem as in v1d."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    theirs = randomise(timm.create_model("res2net50d")).double().eval()
    # The authors average the last part in the first stage, too; MMDetection and detectors do not.
    theirs.layer1[0].pool = nn.Identity()
    detector = Detector(build_res2net(50, out_features=["res2", "res3", "res5"]))
    converted, report = convert_backbone_state_dict(theirs.state_dict(), detector)
    assert report.layout == "Res2Net"
    assert report.num_source == len(theirs.state_dict())
    detector.double().eval().load_state_dict(converted, strict=False)
    x = torch.randn(1, 3, 61, 75, dtype=torch.float64)
    with torch.no_grad():
        got = detector.backbone["bottom_up"](x)
        y = theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(x))))
        c2 = theirs.layer1(y)
        c3 = theirs.layer2(c2)
        c5 = theirs.layer4(theirs.layer3(c3))
    for name, want in {"res2": c2, "res3": c3, "res5": c5}.items():
        torch.testing.assert_close(got[name] / want.std(), want / want.std())


def test_open_mmlab_res2net() -> None:
    with torch.device("meta"):
        ours = build_res2net(freeze_at=0).state_dict()
        detector = Detector(build_res2net(deform_stages=[3, 4, 5]))
    source = open_mmlab_res2net(ours)
    assert {"stem.7.running_mean", "layer3.22.bns.2.bias", "layer4.0.downsample.2.bias"} <= set(
        source
    )
    unused = {"fc.weight", "fc.bias", "layer2.0.conv2.weight", "layer2.0.conv2.conv_offset.bias"}
    unused.add("layer2.0.bn2.running_mean")
    source |= dict.fromkeys(unused, torch.zeros(1))
    converted, report = convert_backbone_state_dict({"state_dict": source}, detector)
    assert report.num_source == len(source)
    assert {k for k in report.dropped if "tracked" not in k} == unused
    assert converted.keys() == {k for k in detector.state_dict() if k.startswith(OURS)}
    for key, name in zip(ours, source, strict=False):
        if f"{OURS}{key}" in converted:  # counters of frozen norms are not
            assert converted[f"{OURS}{key}"] is source[name]


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_cspdarknet_of_yolofs_authors(prefix: str) -> None:
    torch.manual_seed(0)
    ours = CSPDarkNet(stem_channels=4).state_dict()
    source = {prefix + yolof_authors_name(k).removeprefix("backbone."): v for k, v in ours.items()}
    assert is_backbone({"model": source})
    detector = Detector(CSPDarkNet(stem_channels=4, res5_dilation=2))
    converted, report = convert_backbone_state_dict({"model": source}, detector)
    assert report.num_source == len(source)
    assert converted.keys() == {OURS + key for key in ours}
    assert all(torch.equal(converted[OURS + key], value) for key, value in ours.items())


def caffe2_file(path: Path, model: nn.Module) -> dict[str, Any]:
    """As Detectron1's files are: arrays, no statistics, a classifier, an extra list of names."""
    blobs: dict[str, Any] = {
        caffe2_name(key).removeprefix("backbone."): tensor.numpy()
        for key, tensor in model.state_dict().items()
        if "running" not in key and "tracked" not in key
    }
    blobs |= {"conv1_b": torch.ones(8).numpy(), "fc1000_w": torch.zeros(4, 8).numpy()}
    blobs["weight_order"] = list(blobs)
    path.write_bytes(pickle.dumps(blobs, protocol=2))
    return blobs


@pytest.mark.parametrize("norm", ["FrozenBN", "StaticBN"])
def test_caffe2_pickle(norm: str, tmp_path: Path) -> None:
    """Without statistics a norm is its factor and offset alone."""
    torch.manual_seed(0)
    source = randomise(resnet(norm="FrozenBN", stride_in_1x1=True))
    blobs = caffe2_file(tmp_path / "R-50.pkl", source)
    detector = Detector(resnet(norm=norm, stride_in_1x1=True, freeze_at=0))
    result, report = convert_backbone(tmp_path / "R-50.pkl", tmp_path / "out.pth", detector)
    assert report.num_source == len(blobs)
    assert report.dropped["weight_order"] == "not a tensor"
    assert report.dropped.keys() == {"weight_order", "conv1_b", "fc1000_w"}
    assert "BGR" in describe_pixels(report, "RGB")
    assert describe_pixels(report, "BGR") == ""
    written = load_checkpoint(tmp_path / "out.pth")
    assert written["model"].keys() == result["model"].keys()
    assert written["source"]["file"] == "R-50.pkl"
    detector.load_state_dict(written["model"], strict=False)
    norm_layer = detector.backbone["bottom_up"].res3[0].conv1.norm.eval()
    x = torch.randn(1, 16, 2, 2)
    factor = source.res3[0].conv1.norm.weight[:, None, None]
    offset = source.res3[0].conv1.norm.bias[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(norm_layer(x), x * factor + offset)


def test_detectron2_pickle(tmp_path: Path) -> None:
    """As Detectron2's own conversion of torchvision's weights writes them."""
    torch.manual_seed(0)
    source = randomise(resnet(norm="FrozenBN"))
    arrays = {k: v.numpy() for k, v in source.state_dict().items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content))
    detector = Detector(resnet())
    load_initial_weights(detector, str(tmp_path / "R-50.pkl"))
    for key, value in body(detector).items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, torch.from_numpy(arrays[key]), msg=key)


def test_a_wrong_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r50.pth"
    torch.save(randomise(resnet(50)).state_dict(), path)
    for other in (resnet(101), resnet(50, num_groups=2, width_per_group=8), resnet(18)):
        with pytest.raises(CheckpointMismatchError, match=r"r50\.pth: checkpoint and model do not"):
            convert_backbone(path, tmp_path / "out.pth", Detector(other))
    with pytest.raises(CheckpointError, match="has no backbone.bottom_up"):
        convert_backbone_state_dict(load_checkpoint(path), nn.Linear(1, 1))
    assert not (tmp_path / "out.pth").exists()


def test_unknown_tensors_are_named() -> None:
    source = torchvision.models.resnet18(weights=None).state_dict()
    source["layer1.0.attention.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 of 123 .* layer1\.0\.attention\.weight"):
        convert_backbone_state_dict(source, Detector(build_resnet(18)))


def test_detectors_are_no_backbones() -> None:
    assert not is_backbone({"model": tiny_vfnet().state_dict()})
    weights = torchvision.models.resnet18(weights=None).state_dict()
    assert is_backbone(weights)
    theirs = {f"backbone.{k}": v for k, v in weights.items()}
    assert is_backbone(theirs)
    assert is_backbone({**theirs, "head.fc.weight": torch.zeros(1)})
    assert not is_backbone({**theirs, "neck.lateral_convs.0.conv.weight": torch.zeros(1)})
    assert not is_backbone({"epoch": 1})
    with pytest.raises(CheckpointError, match="not an ImageNet backbone .*known: Res2Net, YOLOF"):
        convert_backbone_state_dict({"a.weight": torch.zeros(1)}, tiny_vfnet())


@pytest.fixture
def torchvision_file(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """The backbone of a small VFNet under torchvision's names."""
    weights = body(tiny_vfnet(seed=5))
    path = tmp_path / "small-resnet.pth"
    torch.save({torchvision_name(k): v for k, v in weights.items()}, path)
    return path, weights


@pytest.mark.parametrize("load", [load_initial_weights, load_for_fine_tuning])
def test_a_detector_starts_from_a_backbone(load, torchvision_file, caplog) -> None:
    path, weights = torchvision_file
    model = tiny_vfnet(seed=6)
    fresh = {k: v.clone() for k, v in model.state_dict().items() if OURS not in k}
    with caplog.at_level("INFO"):
        report = load(model, str(path))
    for key, value in body(model).items():
        assert torch.equal(value, weights[key]), key
    for key, value in fresh.items():
        assert torch.equal(model.state_dict()[key], value), key
    assert set(report.missing) == fresh.keys()
    assert "is a backbone; neck and head start afresh" in caplog.text
    assert "layout: torchvision ResNet" in caplog.text


@pytest.mark.parametrize(
    ("address", "file"),
    [
        (
            "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
            "detectron2/ImageNetPretrained/MSRA/R-50.pkl",
        ),
        (
            "catalog://ImageNetPretrained/FAIR/X-101-64x4d",
            "detectron/ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
        ),
    ],
)
def test_detectron2s_addresses(address: str, file: str, monkeypatch, tmp_path: Path) -> None:
    """What its users write; a file that was fetched once is taken from the cache."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    caffe2_file(path, source := randomise(resnet(norm="FrozenBN")))
    detector = Detector(resnet(norm="FrozenBN"))
    load_initial_weights(detector, address)
    weights = source.state_dict()
    for key, value in body(detector).items():
        if "running" not in key:
            assert torch.equal(value, weights[key]), key


def test_the_tool_recognises_a_backbone(torchvision_file, tmp_path, capsys) -> None:
    """What it writes is a backbone again, which train.init_checkpoint takes."""
    path, weights = torchvision_file
    config = "vfnet/vfnet_small_shapes.py"
    output = tmp_path / "out.pth"
    options = ["stem_channels=8", "res2_channels=8", "depth=18"]
    argv = [f"model.backbone.bottom_up.{option}" for option in options]
    assert convert_checkpoint.main(["--config-file", config, str(path), str(output), *argv]) == 0
    printed = capsys.readouterr().out
    assert "layout: torchvision ResNet" in printed
    assert "neck and head start afresh" in printed
    assert "class names" not in printed
    model = tiny_vfnet(seed=7)
    load_initial_weights(model, str(output))
    assert all(torch.equal(value, weights[key]) for key, value in body(model).items())


def test_no_code_of_a_pickle_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "exploded",)

    content = {torchvision_name(k): v.numpy() for k, v in body(tiny_vfnet()).items()}
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({**content, "zz": Bomb()}))
    load_initial_weights(tiny_vfnet(), str(tmp_path / "bomb.pkl"))
    assert not (tmp_path / "exploded").exists()


def test_frozen_stages_take_the_statistics(torchvision_file) -> None:
    path, weights = torchvision_file
    model = tiny_vfnet(backbone__bottom_up__freeze_at=2)
    assert isinstance(model.backbone.bottom_up.res2[0].conv1.norm, FrozenBatchNorm2d)
    load_initial_weights(model, str(path))
    for key, value in body(model).items():
        assert torch.equal(value, weights[key]), key


def test_no_warning_about_pixels_of_other_layouts() -> None:
    assert describe_pixels(ConversionReport(layout="torchvision ResNet"), "RGB") == ""
