"""Convolutions with sums, ReLUs and packed weights against the plain ones."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.optimization import fused_conv
from vfnet_yolof.optimization.fused_conv import FusedConv2d, fusing_available

pytestmark = pytest.mark.skipif(
    not fusing_available(), reason="PyTorch has no fused convolutions for this processor"
)
SHAPES = {
    "1x1": dict(kernel_size=1),
    "3x3": dict(kernel_size=3, padding=1, bias=False),
    "stride": dict(kernel_size=7, stride=2, padding=3),
    "dilation": dict(kernel_size=3, dilation=2, padding=2),
    "groups": dict(kernel_size=3, groups=4, padding=(0, 2)),
}


@pytest.fixture(params=["packed", "plain"])
def packs(request, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether all weights count as large."""
    if request.param == "packed":
        monkeypatch.setattr(fused_conv, "MIN_WEIGHTS", 1)
    return request.param == "packed"


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_the_same_outputs(shape: str, relu: bool, packs: bool) -> None:
    torch.manual_seed(0)
    conv = Conv2d(8, 12, **SHAPES[shape])
    fused = FusedConv2d(conv, relu=relu)
    x = channels_last(2, 8, 13, 17)
    want = conv(x).relu() if relu else conv(x)
    for one, expected in ((x, want), (x, want), (x, want), (x[:1], want[:1]), (x, want)):
        close(fused(one), expected)
    close(fused(x[:, :, :9]), F.relu(conv(x[:, :, :9])) if relu else conv(x[:, :, :9]))
    assert fused(x).is_contiguous(memory_format=torch.channels_last)
    assert fused(x[:0]).shape == want[:0].shape


@torch.no_grad()
def test_a_size_is_packed_for_when_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_conv, "MIN_WEIGHTS", 1)
    fused = FusedConv2d(nn.Conv2d(4, 4, 3, padding=1))
    one, other = channels_last(1, 4, 9, 9), channels_last(1, 4, 8, 8)
    for _ in range(3):  # sizes that change at every call
        fused(one), fused(other)
        assert fused._packed is None
    fused(one), fused(one)
    assert fused._packed[0] == one.shape
    packed = fused._packed[1]
    fused(other), fused(one)
    assert fused._packed[1] is packed
    fused(other), fused(other)
    assert fused._packed[0] == other.shape


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.usefixtures("packs")
@torch.no_grad()
def test_a_sum_in_place(relu: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, padding=1)
    fused = FusedConv2d(conv, relu=relu)
    for _ in range(3):
        x, other = channels_last(2, 8, 9, 9), channels_last(2, 12, 9, 9)
        want = conv(x) + other
        got = fused.add_to(other, x)
        assert got is other
        close(got, want.relu() if relu else want)


ACTIVATIONS = {"none": None, "relu": F.relu, "leaky": nn.LeakyReLU(0.1)}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.no_grad()
def test_activation_of_the_convolution_is_kept(activation: str) -> None:
    conv = Conv2d(4, 4, kernel_size=3, activation=ACTIVATIONS[activation])
    x = channels_last(1, 4, 9, 9)
    close(FusedConv2d(conv)(x), conv(x))


@torch.no_grad()
def test_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_conv, "MIN_WEIGHTS", 1)
    fused = FusedConv2d(nn.Conv2d(4, 4, 3), relu=True)
    x = channels_last(1, 4, 9, 9)
    fused(x)
    want = fused(x)
    assert fused._packed is not None
    other = copy.deepcopy(fused)
    close(other(x), want)
    assert want.any()


def test_other_convolutions_are_refused() -> None:
    for conv in (
        nn.Conv2d(2, 2, 1, dtype=torch.float64),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        Conv2d(2, 2, kernel_size=1, norm=nn.BatchNorm2d(2)),
        nn.ConvTranspose2d(2, 2, 1),
    ):
        assert not FusedConv2d.suits(conv)
        with pytest.raises(ValueError, match="no plain float32 convolution"):
            FusedConv2d(conv)


def test_threads_share_one_whose_weight_is_packed_for_the_size_that_comes_next(packs: bool) -> None:
    torch.manual_seed(0)
    conv = Conv2d(4, 8, 3, padding=1).requires_grad_(False)
    fused = FusedConv2d(conv)
    inputs = [channels_last(1, 4, 6, width) for width in (5, 7, 9, 9)]
    expected = [conv(x) for x in inputs]

    def use(thread: int) -> None:
        for turn in range(200):
            index = (thread + turn // 2) % len(inputs)
            close(fused(inputs[index]), expected[index])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
