"""Optimised models against the models that they are made of."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import vfnet_yolof
from benchmarks.models import pictures, settle_norms, settle_threshold
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from PIL import Image
from tiny import tiny_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import box_iou
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.layers.deform_conv import DeformConvPack, ModulatedDeformConvPack
from vfnet_yolof.modeling.backbones import CSPDarkNet, build_res2net, build_resnet
from vfnet_yolof.optimization import inference, winograd
from vfnet_yolof.optimization.folding import fold_batch_norms
from vfnet_yolof.optimization.fused_conv import FusedConv2d, fusing_available
from vfnet_yolof.optimization.residual import FusedBlock

SIZE = (96, 128)
DETECTORS = {
    "vfnet": "vfnet/vfnet_small_shapes.py",
    "gfl": "gfl/gfl_small_shapes.py",
    "atss": "ablations/vfnet_t3_fcos_atss.py",
    "fcos": "baselines/fcos_small.py",
}


def yolof() -> nn.Module:
    config = load_config("yolof/yolof_r50_c5_1x.py")
    model = config.model
    model.num_classes = 3
    model.backbone.bottom_up.update(depth=18, stem_channels=8, res2_channels=8)
    model.backbone.update(channels=64, mid_channels=32)
    model.head.conv_channels = 64
    return instantiate(model)


def alive(model: nn.Module, count: int = 1) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A model whose weights are random and whose batch norms are not trivial, and its pictures."""
    generator = torch.Generator().manual_seed(3)
    inputs = pictures(count, SIZE, num_classes=3)
    model.eval()
    for module in model.modules():
        if hasattr(module, "running_mean"):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5)):
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.detach().copy_(low + noise)
        if isinstance(module, DeformConvPack):
            nn.init.normal_(module.conv_offset.weight, std=0.05)
        if isinstance(module, nn.Conv2d | DeformConvPack) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    settle_norms(model, inputs)
    if hasattr(model, "postprocessor"):
        model.postprocessor.topk_candidates = 30
        settle_threshold(model, inputs)
    else:
        model.test_score_thresh = 0.0
        model.test_topk_candidates = 30
    return model, inputs


def run(model: nn.Module, inputs: list[dict[str, Any]]) -> list[Any]:
    with torch.inference_mode():
        return [x["instances"] for x in model(inputs)]


def assert_same(got: list[Any], want: list[Any], pixels: float = 1e-2, score: float = 1e-3) -> None:
    """The same boxes up to the order of (nearly) equal scores."""
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert len(one) == len(other)
        assert len(one) > 3, "an empty result compares nothing"
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=score)
        boxes, expected = one.pred_boxes.tensor, other.pred_boxes.tensor
        other_class = one.pred_classes[:, None] != other.pred_classes
        distance = (boxes[:, None] - expected).abs().amax(-1) + 1e4 * other_class
        assert distance.amin(1).max() < pixels
        assert distance.amin(0).max() < pixels


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "yolof":
        return yolof()
    if name == "fcos":
        return instantiate(shrink_fcos())
    return tiny_model(DETECTORS[name])


def shrink_fcos() -> Any:
    model = load_config(DETECTORS["fcos"]).model
    model.num_classes = 3
    return model


@pytest.fixture
def winograd_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay, so that small models use it."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES", 1)


@pytest.mark.parametrize("name", [*DETECTORS, "yolof"])
@pytest.mark.usefixtures("winograd_everywhere")
def test_the_same_detections(name: str) -> None:
    model, inputs = alive(small(name), count=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    want = run(model, inputs)
    fast = vfnet_yolof.optimize(model)

    assert any(isinstance(x, winograd.WinogradConv2d) for x in fast.modules())
    assert not has_batch_norms(fast)
    assert type(fast) is type(model)
    for _ in range(2):  # the second time with what the first one has remembered
        assert_same(run(fast, inputs), want)
    other_size = pictures(1, (64, 80), num_classes=3)
    got, expected = run(fast, other_size), run(model, other_size)
    torch.testing.assert_close(got[0].scores, expected[0].scores, rtol=0, atol=1e-3)

    assert model.state_dict().keys() == before.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert_same(run(model, inputs), want, pixels=1e-9, score=0.0)


@pytest.mark.parametrize("name", [*DETECTORS, "yolof"])
@pytest.mark.usefixtures("winograd_everywhere")
def test_every_convolution_made_faster_is_used(name: str) -> None:
    """Detectron2's FPN has its convolutions in lists of its own, too."""
    model, inputs = alive(small(name))
    fast = vfnet_yolof.optimize(model)
    idle = {x for x in fast.modules() if isinstance(x, FusedConv2d | winograd.WinogradConv2d)}
    assert len(idle) > 10
    for module in list(idle):
        module.register_forward_hook(lambda module, args, out: idle.discard(module))
    run(fast, inputs)
    # The last ones of blocks are not called as modules: they add to what is there.
    added = [x.convs[-1] for x in fast.modules() if isinstance(x, FusedBlock)]
    assert bool(added) == fusing_available()
    assert idle <= set(added)


def test_features_of_inner_stages_are_not_overwritten() -> None:
    """ResNet-18's first block adds to the stem's output."""
    torch.manual_seed(0)
    names = ["stem", "res2", "res3", "res5"]
    backbone = build_resnet(18, stem_channels=32, res2_channels=32, out_features=names)
    model, inputs = alive(Bare(backbone))
    fast = vfnet_yolof.optimize(model)
    with torch.inference_mode():
        want, got = model(inputs), fast(inputs)
    for name in names:
        assert (got[name] - want[name]).norm() < 1e-5 * want[name].norm(), name


def has_batch_norms(model: nn.Module) -> bool:
    return any(isinstance(x, _BatchNorm | FrozenBatchNorm2d) for x in model.modules())


RESNET = dict(stem_channels=8, res2_channels=32, width_per_group=8)
BACKBONES = {
    "resnet50": lambda: build_resnet(50, **RESNET),
    "resnet50 frozen": lambda: build_resnet(50, norm="FrozenBN", **RESNET),
    "resnet50 dcn v1": lambda: build_resnet(50, deform_stages=[3, 5], deform_version=1, **RESNET),
    "resnet50 dcn v2": lambda: build_resnet(50, deform_stages=[4, 5], norm="BN", **RESNET),
    "resnext": lambda: build_resnet(50, num_groups=4, **{**RESNET, "width_per_group": 4}),
    "res2net": lambda: build_res2net(
        50, base_width=16, stem_channels=8, res2_channels=32, deform_stages=[5]
    ),
    "darknet mish": lambda: CSPDarkNet(stem_channels=4, out_features=["res3", "res4", "res5"]),
    "darknet leaky dc5": lambda: CSPDarkNet(
        stem_channels=4,
        activation="LeakyReLU",
        res5_dilation=2,
        out_features=["res3", "res4", "res5"],
    ),
}


class Bare(nn.Module):
    """A detector as far as optimising is concerned."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: list[dict[str, Any]]) -> Any:
        images = torch.stack([x["image"] for x in inputs]) / 64 - 2
        return self.backbone(images.to(next(self.parameters()).dtype))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_features(name: str) -> None:
    """In float64: a random network multiplies rounding errors a thousandfold."""
    torch.manual_seed(0)
    model, inputs = alive(Bare(BACKBONES[name]()).double())
    fast = vfnet_yolof.optimize(model)
    assert has_batch_norms(model)
    assert not has_batch_norms(fast)
    with torch.inference_mode():
        want, got = model(inputs), fast(inputs)
    assert got.keys() == want.keys()
    for key in want:
        assert got[key].is_contiguous(memory_format=torch.channels_last)
        scale = want[key].std()
        assert scale > 0.05
        assert ((got[key] - want[key]).abs().max() / scale) < 1e-6


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_features_in_float32(name: str) -> None:
    """With fused blocks; against float64, as exact as the plain network is."""
    torch.manual_seed(0)
    model, inputs = alive(Bare(BACKBONES[name]()))
    fast = vfnet_yolof.optimize(model)
    exact = copy.deepcopy(model).double()
    with torch.inference_mode():
        want, got, plain = exact(inputs), fast(inputs), model(inputs)
    for key in want:
        rounding = (plain[key] - want[key]).norm() / want[key].norm()
        assert (got[key] - want[key]).norm() / want[key].norm() < 1e-5 + 4 * rounding


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


@pytest.mark.usefixtures("winograd_everywhere")
def test_convolutions_of_another_kind_are_left_alone() -> None:
    """Their weight is not what is multiplied, so nothing can be multiplied into it."""
    torch.manual_seed(0)
    layers = nn.Sequential(Standardised(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model, inputs = alive(Bare(layers))
    fast = vfnet_yolof.optimize(model)
    assert type(fast.backbone[0]) is Standardised
    with torch.inference_mode():
        torch.testing.assert_close(fast(inputs), model(inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["vfnet", "gfl", "yolof"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, inputs = alive(small(name))
    fast = vfnet_yolof.optimize(model, dtype=dtype)
    assert {x.dtype for x in fast.backbone.parameters()} == {dtype}
    assert {x.dtype for x in fast.head.parameters()} == {dtype}
    (want,), (got,) = run(model, inputs), run(fast, inputs)
    assert got.pred_boxes.tensor.dtype == torch.float32
    assert got.scores.dtype == torch.float32
    # Random weights have no clear winners: most of the boxes are found again.
    overlap = box_iou(want.pred_boxes.tensor, got.pred_boxes.tensor).amax(1)
    assert overlap.median() > 0.6


def test_deformable_layers_in_half_precision() -> None:
    torch.manual_seed(0)
    model, inputs = alive(
        Bare(build_resnet(50, deform_stages=[2], **RESNET, out_features=["res2"]))
    )
    fast = vfnet_yolof.optimize(model, dtype=torch.bfloat16)
    layers = [x for x in fast.modules() if isinstance(x, ModulatedDeformConvPack)]
    assert layers
    assert all(x.weight.dtype == torch.bfloat16 for x in layers)
    with torch.inference_mode():
        want, got = model(inputs)["res2"], fast(inputs)["res2"]
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().mean() / want.abs().mean() < 0.1


def test_grids_are_made_once_for_each_size() -> None:
    model, inputs = alive(small("gfl"))
    fast = vfnet_yolof.optimize(model)
    run(fast, inputs)
    sizes = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    cpu = torch.device("cpu")
    known = fast.points.points(sizes, cpu)
    assert fast.points.points(list(sizes), cpu) is known
    assert fast.points.points([(1, 1)] * 5, cpu) is not known
    assert not known[0].is_inference()
    for got, want in zip(known, model.points.points(sizes, cpu), strict=True):
        assert torch.equal(got, want)
    assert model.points.points(sizes, cpu) is not model.points.points(sizes, cpu)


def test_norms_with_batch_statistics_or_none_before_them_stay() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.ReLU(),
        nn.BatchNorm2d(4),
    )
    assert fold_batch_norms(model) == 0
    assert isinstance(model[0], nn.BatchNorm2d)


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(TypeError, match="has no backbone"):
        vfnet_yolof.optimize(nn.Conv2d(1, 1, 1))
    model = small("gfl")
    with pytest.raises(TypeError, match="dtype must be one of"):
        vfnet_yolof.optimize(model, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs float32"):
        vfnet_yolof.optimize(model, dtype=torch.bfloat16, winograd=True)


@pytest.mark.slow
def test_compiled() -> None:
    model, inputs = alive(small("gfl"))
    assert_same(run(vfnet_yolof.optimize(model, compile=True), inputs), run(model, inputs))


def test_evaluation_on_request(tmp_path, capsys) -> None:
    Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(tmp_path / "0.png")
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "patch"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 6, 30, 24]}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    cfg = load_config("gfl/gfl_small_shapes.py")
    cfg.model.num_classes = 1
    model, _ = alive(instantiate(cfg.model))
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    run_arguments = [
        *("--config-file", "gfl/gfl_small_shapes.py", "--num-gpus", "0", "--optimize"),
        *("--val-json", str(tmp_path / "val.json"), "--val-images", str(tmp_path)),
        f"train.output_dir={tmp_path / 'out'}",
        f"train.init_checkpoint={tmp_path / 'model.pth'}",
    ]
    assert command_line(run_arguments) == 2
    assert "--optimize is for --eval-only" in capsys.readouterr().err
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "fold_batch_norms", lambda x: made.append(fold_batch_norms(x)))
        assert command_line([*run_arguments, "--eval-only"]) == 0
    assert made[0] > 10
    assert "bbox/AP" in (tmp_path / "out" / "metrics.json").read_text()
