"""Winograd's algorithm against the direct convolution."""

import pytest
import torch
from detectron2.layers import Conv2d
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.optimization import winograd
from vfnet_yolof.optimization.winograd import WinogradConv2d, transforms


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests need few channels and small maps."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES", 1)


def error(got: Tensor, conv: nn.Conv2d, x: Tensor) -> float:
    """Largest difference from the float64 convolution, over that one's standard deviation."""
    bias = None if conv.bias is None else conv.bias.double()
    want = F.conv2d(x.double(), conv.weight.double(), bias, padding=conv.padding)
    assert got.shape == want.shape
    return float((got.double() - want).abs().max() / want.std())


def test_one_dimension_is_a_correlation() -> None:
    inputs, kernels, outputs = transforms()
    data = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0], dtype=torch.float64)
    kernel = torch.tensor([2.0, 7.0, -1.0], dtype=torch.float64)
    want = [sum(kernel[k] * data[i + k] for k in range(3)) for i in range(4)]
    got = outputs @ ((kernels @ kernel) * (inputs @ data))
    torch.testing.assert_close(got, torch.stack(want), rtol=0, atol=1e-12)


@given(
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    padding=st.sampled_from([(1, 1), (0, 0), (2, 0), (1, 3)]),
    images=st.sampled_from([1, 3]),
    bias=st.booleans(),
    pieces=st.sampled_from([1, 4, 100]),
    seed=st.integers(0, 99),
)
def test_equals_the_convolution(height, width, padding, images, bias, pieces, seed) -> None:
    height, width = (max(n, 3 - 2 * p) for n, p in zip((height, width), padding, strict=True))
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(winograd, "MIN_CHANNELS", 1)
        patch.setattr(winograd, "MIN_TILES", 1)
        patch.setattr(winograd, "TILES_AT_ONCE", pieces)
        conv = nn.Conv2d(3, 5, 3, padding=padding, bias=bias)
        x = torch.randn(images, 3, height, width).to(memory_format=torch.channels_last)
        fast = WinogradConv2d(conv)(x)
        want = F.conv2d(x.double(), conv.weight.double(), padding=padding)
        if bias:
            want = want + conv.bias.double()[:, None, None]
        assert fast.shape == want.shape
        torch.testing.assert_close(fast.double(), want, rtol=0, atol=3e-5)


def test_rounding_stays_close_to_that_of_the_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(1, 256, 40, 52).relu().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        fast = WinogradConv2d(conv)(x)
        assert fast.is_contiguous(memory_format=torch.channels_last)
        assert error(fast, conv, x) < 2e-5
        assert error(fast + 1e-3, conv, x) > 1e-4, "the measure sees nothing"


def test_few_tiles_are_computed_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    fast = WinogradConv2d(nn.Conv2d(2, 2, 3, padding=1))
    fast.kernel.fill_(torch.nan)
    x = torch.randn(1, 2, 4 * 8, 4 * 7)
    assert torch.isfinite(fast(x)).all()
    assert fast(torch.randn(1, 2, 4 * 8, 4 * 8)).isnan().all()


@pytest.mark.usefixtures("small_counts")
def test_activation_of_the_convolution_is_kept() -> None:
    conv = Conv2d(2, 3, kernel_size=3, padding=1, activation=F.relu)
    x = torch.randn(1, 2, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(WinogradConv2d(conv)(x), conv(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=1),
        dict(kernel_size=3, stride=2),
        dict(kernel_size=3, dilation=2),
        dict(kernel_size=3, groups=2),
        dict(kernel_size=3, padding="same"),
        dict(kernel_size=3, padding=1, padding_mode="reflect"),
        dict(kernel_size=3, dtype=torch.bfloat16),
    ],
)
@pytest.mark.usefixtures("small_counts")
def test_other_convolutions_are_refused(options) -> None:
    conv = nn.Conv2d(4, 4, **options)
    assert not WinogradConv2d.suits(conv)
    with pytest.raises(ValueError, match="3x3 float32"):
        WinogradConv2d(conv)


def test_channel_limits() -> None:
    def suits(channels: int, out: int) -> bool:
        return WinogradConv2d.suits(nn.Conv2d(channels, out, 3, device="meta"))

    assert suits(192, 192)
    assert suits(256, 512)
    assert not suits(191, 256)
    assert not suits(256, 68)
    assert not suits(512, 512)
    assert not WinogradConv2d.suits(Conv2d(96, 96, kernel_size=3, norm=nn.BatchNorm2d(96)))
