"""Parameters and multiply-adds, against a count by hand and the reference's figures."""

import itertools
import json
from collections import Counter

import pytest
import torch
from detecting import CLASS_NAMES
from detectron2.config import instantiate
from detectron2.layers import CNNBlockBase
from studied import SIZES, write_data
from tiny import tiny_model, tiny_yolof
from torch import nn
from vfnet_yolof.analysis import Cost, PartCost, build_without_memory, cost_report, count
from vfnet_yolof.analysis.cost import mean_count
from vfnet_yolof.analysis.cost_report import analyze, table
from vfnet_yolof.cli.main import main
from vfnet_yolof.cli.reports import analyze_tool
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.read import read
from vfnet_yolof.layers.deform_conv import DeformConv2d

# Millions of parameters and 10^9 multiply-adds of the reference implementations at 800 x 1344.
REFERENCE = {
    "vfnet/vfnet_r50_fpn_1x.py": (32.89, 228.1),
    "gfl/gfl_r50_fpn_1x.py": (32.44, 218.0),
    "ablations/vfnet_t3_vfl.py": (32.29, 214.7),
}


@pytest.mark.parametrize("config", REFERENCE)
def test_reference_figures(config: str) -> None:
    cost = analyze(config, (800, 1344))
    parameters, multiply_adds = REFERENCE[config]
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.005)
    assert cost.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.02)


def by_hand(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-adds of all convolutions in a real pass: outputs times the inputs of each."""
    found: Counter[str] = Counter()

    def hook(part: str):
        def add(conv: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            found[part] += output.numel() * conv.weight[0].numel()

        return add

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | DeformConv2d):
            part = "backbone" if name.startswith("backbone.bottom_up.") else name.split(".")[0]
            module.register_forward_hook(
                hook("neck" if part == "backbone" and ".bottom_up." not in name else part)
            )
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, *size))
        model.head([features[name] for name in model.head_in_features])
    return dict(found)


def test_each_part_is_counted_as_by_hand() -> None:
    """Strides, odd maps, 1x1 and 3x3 kernels, deformable convolutions and their offsets'."""
    options = {"head__dcn_on_last_conv": True}
    model = tiny_model("vfnet/vfnet_small_shapes.py", **options).eval()
    size = (96, 160)
    cost = count(model, (90, 130))  # padded to multiples of 32
    assert {k: v.multiply_adds for k, v in cost.parts.items()} == by_hand(model, size)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.head.parameters == sum(p.numel() for p in model.head.parameters())
    without_dcn = count(tiny_model("vfnet/vfnet_small_shapes.py").eval(), size)
    assert without_dcn.head.multiply_adds < cost.head.multiply_adds
    assert without_dcn.backbone == cost.backbone


def test_a_model_without_data_costs_the_same_and_a_real_one_is_not_changed() -> None:
    fake = build_without_memory(lambda: tiny_model("gfl/gfl_small_shapes.py"))
    model = tiny_model("gfl/gfl_small_shapes.py").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    assert count(model, (64, 64)) == count(fake, (64, 64))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("config", "size", "anchors"),
    [
        # YOLOF, section 4.2: from 100k anchors to 5k. The round 100k are those at 600 px.
        ("baselines/retinanet_r50_fpn_1x.py", (600, 1000), 116_712),
        ("baselines/retinanet_r50_fpn_1x.py", (800, 1344), 201_600),
        ("yolof/yolof_r50_c5_1x.py", (800, 1344), 5_250),
        ("yolof/yolof_r50_dc5_1x.py", (800, 1344), 6 * 50 * 84),
    ],
)
def test_anchors_of_an_image(config: str, size: tuple[int, int], anchors: int) -> None:
    assert sum(analyze(config, size).anchors) == anchors


def test_locations_of_each_level_are_the_anchors_of_a_detector_without() -> None:
    cost = count(tiny_model("gfl/gfl_small_shapes.py"), (64, 96))
    assert cost.anchors == (8 * 12, 4 * 6, 2 * 3, 1 * 2, 1 * 1)
    assert cost.as_dict()["anchors"] == {"levels": [96, 24, 6, 2, 1], "total": 129}


def test_totals() -> None:
    cost = Cost(PartCost(1, 20), PartCost(2, 30), PartCost(3, 40))
    assert (cost.parameters, cost.multiply_adds) == (6, 90)
    assert cost.as_dict()["multiply_adds"] == dict(backbone=20, neck=30, head=40, total=90)
    assert "not known" in table({"another's": cost})  # predictions that do not tell their anchors


def test_only_detectors_are_counted() -> None:
    with pytest.raises(TypeError, match="backbone and head"):
        count(CNNBlockBase(3, 3, 1), (64, 64))
    with pytest.raises(ValueError, match="positive"):
        count(tiny_model("gfl/gfl_small_shapes.py"), (0, 64))


def test_command(tmp_path, capsys) -> None:
    output = tmp_path / "new" / "cost.json"
    name = "gfl/gfl_small_shapes.py"
    arguments = [name, "--size", "64", "96", "--json", str(output), "--set", "model.num_classes=3"]
    assert analyze_tool("", arguments) == 0
    assert name in capsys.readouterr().out
    content = json.loads(output.read_text())
    assert content["size"] == [64, 96]
    three = analyze(name, (64, 96), ["model.num_classes=3"])
    assert content["configs"][name] == three.as_dict()
    assert three.head.parameters < analyze(name, (64, 96)).head.parameters  # 6 classes


@pytest.mark.parametrize(
    "arguments", [["gfl/no_such.py"], ["gfl/gfl_small.py", "--set", "model.num_clases=3"]]
)
def test_mistakes_end_with_one_line(arguments: list[str], capsys) -> None:
    assert analyze_tool("", arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert arguments[-1].split("=")[0].split("/")[-1].split(".")[-1] in error


def test_mean_counts_each_padded_size_once_and_weights_it_by_its_images() -> None:
    model = build_without_memory(lambda: tiny_model("gfl/gfl_small_shapes.py"))
    small, wide = count(model, (64, 64)), count(model, (64, 96))
    mean = mean_count(model, {(64, 64): 3, (50, 40): 1, (64, 96): 2})  # the second is padded
    assert (mean.images, mean.padded_sizes) == (6, 2)
    want = (4 * small.multiply_adds + 2 * wide.multiply_adds) / 6
    assert abs(mean.cost.multiply_adds - want) < 3, "each part is rounded"
    assert mean.cost.parameters == small.parameters
    with pytest.raises(ValueError, match="no images"):
        mean_count(model, {})


def test_yolof_does_not_pad_a_single_image() -> None:
    model = build_without_memory(tiny_yolof)
    mean = mean_count(model, {(64, 64): 1, (60, 50): 1})
    assert mean.padded_sizes == 2
    assert mean.cost.multiply_adds < count(model, (64, 64)).multiply_adds


def test_sizes_of_test_images_are_those_that_the_loader_gives() -> None:
    cfg = read("vfnet/vfnet_small_shapes.py").cfg
    sizes = cost_report.sizes_of_test_images("small", cfg, first=6)
    cfg.dataloader.test.num_workers = 0
    loaded = itertools.islice((x for batch in instantiate(cfg.dataloader.test) for x in batch), 6)
    assert sizes == Counter(tuple(x["image"].shape[1:]) for x in loaded)
    assert len(sizes) > 1


def test_mean_by_command(tmp_path, capsys) -> None:
    name, output = "vfnet/vfnet_small_shapes.py", tmp_path / "cost.json"
    assert main(["analyze", name, "--images", "2", "--json", str(output)]) == 0
    assert f"{name}, 2 images (" in capsys.readouterr().out
    content = json.loads(output.read_text())
    mean = content["test_images"][name]
    assert mean["images"] == 2
    ratio = mean["multiply_adds"]["total"] / content["configs"][name]["multiply_adds"]["total"]
    assert 0.01 < ratio < 0.1, "shapes have some 160 px, the default is 800 x 1344"
    assert main(["analyze", name, "--images", "-1"]) == 2
    assert "--images -1" in capsys.readouterr().err


def test_mean_over_own_data(tmp_path, capsys) -> None:
    """Each image at its own size: that of the second is 64 x 80, of the last 70 x 64."""
    name, output = "yolof/yolof_small_shapes.py", tmp_path / "cost.json"
    data = write_data(tmp_path)
    assert main(["analyze", name, *data, "--json", str(output)]) == 0
    assert f"{name}, 4 images (" in capsys.readouterr().out
    mean = json.loads(output.read_text())["test_images"][name]
    assert mean["images"] == len(SIZES)
    classes = [f"model.num_classes={len(CLASS_NAMES)}"]
    each = [analyze(name, size, classes).multiply_adds for size in SIZES]
    assert len(set(each)) > 1
    assert mean["multiply_adds"]["total"] == pytest.approx(sum(each) / len(each))


def test_mean_needs_a_test_set() -> None:
    cfg = read("vfnet/vfnet_small_shapes.py").cfg
    del cfg.dataloader.test.dataset.names
    with pytest.raises(ConfigError, match=r"small: has no dataloader.test.dataset.names"):
        cost_report.sizes_of_test_images("small", cfg)
