"""Parameter groups: biases at twice the rate without decay, but for those of norms and offsets."""

import pytest
from torch import nn
from vfnet_yolof.solver import get_optimizer_params


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.GroupNorm(1, 1)
        self.conv_offset = nn.Conv2d(1, 1, 1)
        self.conv2_offset = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(1, 1)
        self.shared = self.head  # the same parameters under a second name


def by_name(model, groups):
    names = {p: n for n, p in model.named_parameters()}
    return {
        names[p]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"] if p in names
    }


def test_which_parameters_get_what():
    model = Net()
    groups = get_optimizer_params(model, base_lr=0.01, weight_decay=1e-4)
    rates = by_name(model, groups)
    weight, bias = (0.01, 1e-4), (0.02, 0.0)
    assert rates == {
        "conv.weight": weight,
        "conv.bias": bias,
        "norm.weight": weight,
        "norm.bias": weight,
        "conv_offset.weight": weight,
        "conv_offset.bias": weight,
        "conv2_offset.weight": weight,
        "conv2_offset.bias": weight,
        "head.weight": weight,
        "head.bias": bias,
    }
    assert len(groups) == 2
    assert sum(len(g["params"]) for g in groups) == len(rates)  # shared ones once


def test_decay_of_norms_and_factors_by_prefix():
    model = Net()
    groups = get_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        weight_decay_bias=None,
        lr_factors={"conv": 0.5, "head": 0.25, "head.bias": 3.0},
    )
    rates = by_name(model, groups)
    assert rates["norm.weight"] == rates["norm.bias"] == (1.0, 0.0)
    assert rates["conv.weight"] == (0.5, 0.1)
    assert rates["conv.bias"] == (1.0, 0.1)
    assert rates["conv_offset.weight"] == (1.0, 0.1)  # "conv" is a module, not a beginning
    assert rates["head.weight"] == (0.25, 0.1)
    assert rates["head.bias"] == (6.0, 0.1)  # the longer path, and twice that


def test_frozen_parameters_are_left_out():
    model = Net()
    model.conv.requires_grad_(False)
    rates = by_name(model, get_optimizer_params(model, base_lr=1.0, weight_decay=0.1))
    assert not [n for n in rates if n.startswith("conv.")]
    with pytest.raises(ValueError, match="no trainable parameter"):
        get_optimizer_params(model.requires_grad_(False), base_lr=1.0)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="needs a model"):
        get_optimizer_params()
    with pytest.raises(ValueError, match="base_lr"):
        get_optimizer_params(Net())
    with pytest.raises(ValueError, match="bakbone"):
        get_optimizer_params(Net(), base_lr=1.0, lr_factors={"bakbone": 0.1})
