"""Parameter groups of every backbone and neck, by the references' rule told from the names."""

from collections.abc import Callable

import pytest
import torch
from detectron2.modeling import FPN
from torch import nn
from vfnet_yolof.modeling.backbones import (
    CSPDarkNet,
    LastLevelP6P7Norm,
    TimmBackbone,
    build_res2net,
    build_resnet,
)
from vfnet_yolof.modeling.necks import PAFPN, PAFPNX
from vfnet_yolof.solver import get_optimizer_params

LEVELS = ["res3", "res4", "res5"]
WEIGHT, NORM, BIAS = (0.01, 1e-4), (0.01, 1e-5), (0.02, 0.0)


def small_resnet(**options) -> nn.Module:
    return build_resnet(50, stem_channels=8, width_per_group=8, res2_channels=16, **options)


def timm_backbone() -> nn.Module:
    pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    return TimmBackbone("test_convnext")


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ResNet with DCN": lambda: small_resnet(deform_stages=[5]),
    "Res2Net with DCN": lambda: build_res2net(
        50, stem_channels=8, res2_channels=32, base_width=32, deform_stages=[4, 5]
    ),
    "CSPDarkNet": lambda: CSPDarkNet(stem_channels=4),
    "CSPDarkNet, synchronised": lambda: CSPDarkNet(stem_channels=4, norm="SyncBN"),
    "FPN": lambda: FPN(small_resnet(), LEVELS, 64),
    "PAFPN": lambda: PAFPN(small_resnet(), LEVELS, 64),
    "PAFPNX": lambda: PAFPNX(small_resnet(), LEVELS, 64, top_block=LastLevelP6P7Norm(64, 64, "p5")),
    "timm": timm_backbone,
}
HAS_BIASES = {"FPN", "PAFPN", "PAFPNX", "timm"}  # other than those of norms and offsets


def expected(model: nn.Module, name: str) -> tuple[float, float]:
    """Names of norm layers and offset convolutions end alike in all models here."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    if "Norm" in type(layer).__name__:
        return NORM
    if path.endswith("conv_offset"):
        return WEIGHT
    return BIAS if leaf == "bias" else WEIGHT


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_in_the_right_group(kind: str) -> None:
    model = MODELS[kind]()
    groups = get_optimizer_params(model, base_lr=0.01, weight_decay=1e-4, weight_decay_norm=1e-5)
    rates = {p: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(rates) == len(trainable) == sum(len(g["params"]) for g in groups)
    wrong = {n: rates[p] for n, p in trainable.items() if rates[p] != expected(model, n)}
    assert wrong == {}
    assert (BIAS in rates.values()) == (kind in HAS_BIASES)
    assert any(n.endswith("norm.bias") and rates[p] == NORM for n, p in trainable.items()) or (
        kind == "timm"
    )
    offsets = [rates[p] for n, p in trainable.items() if n.endswith("conv_offset.bias")]
    assert set(offsets) <= {WEIGHT}
    assert bool(offsets) == ("DCN" in kind or kind == "PAFPNX")


def test_the_backbone_has_a_rate_of_its_own() -> None:
    """YOLOF: a third of the rate below the neck, whatever the backbone."""
    model = nn.ModuleDict(
        {"backbone": PAFPN(CSPDarkNet(stem_channels=4, out_features=LEVELS), LEVELS, 64)}
    )
    groups = get_optimizer_params(
        model, base_lr=0.12, bias_lr_factor=1.0, lr_factors={"backbone.bottom_up": 0.334}
    )
    rates = {p: g["lr"] for g in groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        below = name.startswith("backbone.bottom_up.")
        assert rates[parameter] == pytest.approx(0.12 * (0.334 if below else 1.0)), name
    torch.optim.SGD(groups, lr=0.12)
