"""Backbones of the timm library: truthful shapes, a pyramid on top, freezing, clear errors."""

import sys

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import FPN
from tiny import picture, shrink
from torch import nn
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.backbones import TimmBackbone


@pytest.fixture
def timm() -> object:
    return pytest.importorskip("timm", reason="timm is not installed: pip install timm")


FAMILIES = {
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {"out_features": ["res2", "res3", "res5"]},
    "test_byobnet": {"out_features": ["res1", "res5"]},
    # Channels last inside of timm; a plain transformer, all of whose maps have stride 16.
    "swin_tiny_patch4_window7_224": {
        "options": {"strict_img_size": False, "embed_dim": 12, "depths": (1, 1, 1, 1)}
    },
    "test_vit": {"out_features": ["res4"], "options": {"dynamic_img_size": True}},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_are_those_announced(timm, name: str) -> None:
    model = TimmBackbone(name, **FAMILIES[name]).eval()
    wanted = FAMILIES[name].get("out_features", ["res3", "res4", "res5"])
    shapes = model.output_shape()
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 96))
    assert list(outputs) == list(shapes) == wanted
    for feature, x in outputs.items():
        assert shapes[feature].stride == 2 ** int(feature[-1])
        sides = [64 // shapes[feature].stride, 96 // shapes[feature].stride]
        assert list(x.shape) == [1, shapes[feature].channels, *sides]


def test_a_pyramid_on_top_learns_down_to_the_image(timm) -> None:
    torch.manual_seed(0)
    # timm begins residual branches at zero, behind which nothing would have a gradient.
    body = TimmBackbone("test_resnet", options={"zero_init_last": False})
    pyramid = FPN(body, ["res3", "res4", "res5"], 32)
    outputs = pyramid(torch.randn(2, 3, 64, 64))
    assert {k: tuple(v.shape[-2:]) for k, v in outputs.items()} == {
        "p3": (8, 8),
        "p4": (4, 4),
        "p5": (2, 2),
    }
    sum(x.square().mean() for x in outputs.values()).backward()
    assert [n for n, p in pyramid.named_parameters() if not p.grad.any()] == []


def test_a_detector_on_timm_trains(timm) -> None:
    """As the documentation shows: one node of a packaged config is another backbone."""
    config = shrink(load_config("vfnet/vfnet_small_shapes.py"))
    config.model.backbone.bottom_up = L(TimmBackbone)(name="test_convnext")
    torch.manual_seed(0)
    model = instantiate(config.model).train()
    losses = model([picture(), picture(seed=1)])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    silent = [n for n, p in model.backbone.named_parameters() if not p.grad.any()]
    assert silent == []


def test_no_layers_that_nothing_is_made_of(timm) -> None:
    model = TimmBackbone("test_resnet", out_features=["res3", "res4"])
    sum(x.sum() for x in model(torch.randn(1, 3, 64, 64)).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("norm_eval", [True, False])
def test_frozen_parts_stay_and_others_learn(timm, norm_eval: bool) -> None:
    torch.manual_seed(0)
    frozen = ("conv1", "bn1", "layer1")
    model = TimmBackbone("test_resnet", frozen=frozen, norm_eval=norm_eval)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    model.train()
    sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64)).values()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    after = model.model.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert {k.split(".")[0] for k in changed} == {"layer2", "layer3", "layer4"}
    statistics = {k for k in changed if "running" in k}
    assert bool(statistics) is not norm_eval
    assert any("bn" in k and k.endswith(".weight") for k in changed)
    model.eval().train()
    assert not any(m.training for m in model.model.bn1.modules() if isinstance(m, nn.BatchNorm2d))


def test_mistakes_are_named(timm) -> None:
    with pytest.raises(ValueError, match="feature maps of 'no_such_model'.*Unknown model"):
        TimmBackbone("no_such_model")
    with pytest.raises(ValueError, match="has the features res4; out_features has res3, res5"):
        TimmBackbone("test_vit")
    with pytest.raises(ValueError, match="from fine to coarse"):
        TimmBackbone("test_resnet", out_features=["res5", "res3"])
    with pytest.raises(ValueError, match="no submodule 'layer9'; there are conv1, bn1"):
        TimmBackbone("test_resnet", frozen=["layer9"])


def test_without_the_library(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install timm"):
        TimmBackbone("test_resnet")
