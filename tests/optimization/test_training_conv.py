"""The faster convolution of training steps against the plain one with its norm."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.modeling.backbones.norms import StaticBatchNorm2d
from vfnet_yolof.optimization import winograd
from vfnet_yolof.optimization.training_conv import TrainingConv2d, is_plain_conv

NORMS = {
    "static": StaticBatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "none": lambda channels: None,
    "batch": nn.BatchNorm2d,
    "without affine": lambda channels: nn.BatchNorm2d(channels, affine=False).eval(),
    "group": lambda channels: nn.GroupNorm(1, channels),
}


def plain_conv(norm: str = "static", bias: bool = False, **options) -> Conv2d:
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, **options}
    conv = Conv2d(4, 6, norm=NORMS[norm](6), activation=F.relu, bias=bias, **options)
    if hasattr(conv.norm, "running_mean"):
        nn.init.uniform_(conv.norm.running_mean, -1, 1)
        nn.init.uniform_(conv.norm.running_var, 0.5, 2)
        if conv.norm.weight is not None:
            nn.init.uniform_(conv.norm.weight, 0.5, 2)
            nn.init.uniform_(conv.norm.bias, -1, 1)
    return conv.double()


def gradients(conv: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, and gradients of an uneven sum of it, by name."""
    x = x.detach().requires_grad_()
    conv.zero_grad()
    out = conv(x)
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    found = {"out": out.detach(), "x": x.grad}
    return found | {k: p.grad.clone() for k, p in conv.named_parameters()}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2, "dilation": 2}])
def test_the_same_outputs_and_gradients(norm: str, bias: bool, options: dict) -> None:
    conv = plain_conv(norm, bias, **options)
    fast = TrainingConv2d(conv, use_winograd=True)
    assert fast.state_dict().keys() == conv.state_dict().keys()
    assert all(a is b for a, b in zip(fast.parameters(), conv.parameters(), strict=True))
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    want, got = gradients(conv, x), gradients(fast, x)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-10, msg=name)


def test_a_norm_of_fixed_statistics_keeps_no_feature_map() -> None:
    def kept(conv: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            conv(x)
        return sum(sizes.values())

    x = torch.randn(1, 4, 64, 64, dtype=torch.float64)
    conv = plain_conv()
    saved = kept(conv) - kept(TrainingConv2d(conv, use_winograd=False))
    assert saved >= 0.9 * 6 * 64 * 64


def test_statistics_of_batches_are_followed() -> None:
    """The choice is made at each step: a norm may be put into training mode later."""
    conv = plain_conv("batch").eval()
    fast = TrainingConv2d(conv, use_winograd=False)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    before = conv.norm.running_mean.clone()
    torch.testing.assert_close(fast(x), conv(x))
    assert torch.equal(conv.norm.running_mean, before)
    fast.train()
    fast(x)
    assert not torch.equal(conv.norm.running_mean, before)


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests need few channels and small maps."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES_IN_TRAINING", 1)


@pytest.mark.usefixtures("small_counts")
def test_winograd_is_used_in_float32_outside_of_autocast(monkeypatch) -> None:
    conv = plain_conv("none", bias=True).float()
    fast = TrainingConv2d(conv, use_winograd=True)
    calls = []
    function = winograd.winograd_conv2d
    monkeypatch.setattr(
        winograd, "winograd_conv2d", lambda *args: calls.append(1) or function(*args)
    )
    x = torch.randn(1, 4, 9, 9)
    want, got = gradients(conv, x), gradients(fast, x)
    assert len(calls) == 1
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-4, msg=name)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
    TrainingConv2d(conv, use_winograd=False)(x)
    fast.double()(x.double())
    assert len(calls) == 1


@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    padding=st.sampled_from([(1, 1), (0, 0), (2, 0), (1, 3)]),
    images=st.sampled_from([1, 3]),
    bias=st.booleans(),
    pieces=st.sampled_from([1, 4, 100]),
    channels_last=st.booleans(),
)
def test_winograd_gradients(height, width, padding, images, bias, pieces, channels_last) -> None:
    height, width = (max(n, 3 - 2 * p) for n, p in zip((height, width), padding, strict=True))
    torch.manual_seed(0)
    x = torch.randn(images, 3, height, width, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    leaves = [x, torch.randn(5, 3, 3, 3).double(), torch.randn(5).double() if bias else None]
    leaves = [None if v is None else v.requires_grad_() for v in leaves]
    given_leaves = [v for v in leaves if v is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES_AT_ONCE", pieces)
        want = F.conv2d(*leaves, padding=padding)
        got = winograd.winograd_conv2d(*leaves, padding)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        weights = torch.randn_like(want)
        want = torch.autograd.grad((want * weights).sum(), given_leaves)
        got = torch.autograd.grad((got * weights).sum(), given_leaves)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_winograd_gradients_round_little() -> None:
    """Of 256 channels in float32, in units of the gradients' standard deviations."""
    torch.manual_seed(0)
    x = torch.randn(1, 256, 24, 24).relu().requires_grad_()
    weight = (torch.randn(256, 256, 3, 3) / 48).requires_grad_()
    scale = torch.randn(1, 256, 24, 24)
    got = torch.autograd.grad(
        (winograd.winograd_conv2d(x, weight, None, (1, 1)) * scale).sum(), [x, weight]
    )
    out = F.conv2d(x.double(), weight.double(), padding=1)
    want = torch.autograd.grad((out * scale).sum(), [x, weight])
    for one, other in zip(got, want, strict=True):
        error = (one - other).abs().max() / other.std()
        assert error < 5e-5


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def test_other_convolutions_are_refused() -> None:
    assert is_plain_conv(nn.Conv2d(2, 2, 1))
    assert is_plain_conv(TrainingConv2d(nn.Conv2d(2, 2, 1), use_winograd=True))
    assert not is_plain_conv(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="Standardised"):
        TrainingConv2d(Standardised(2, 2, 1), use_winograd=False)
