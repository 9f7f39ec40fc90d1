"""Deformable convolution: every implementation means the same, with gradients, everywhere."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import ops
from vfnet_yolof.layers import deform_forms, deform_gather
from vfnet_yolof.layers.deform_conv import (
    DeformConv2d,
    deform_conv2d,
    deform_conv_implementation,
)

OWN_FORMS = ("embedding_bag", "grid_sample")


class Case(NamedTuple):
    """One call: tensors by name, and the geometry of the convolution."""

    tensors: dict[str, Tensor]
    geometry: dict[str, tuple[int, int]]

    def reference(self) -> Tensor:
        return ops.deform_conv2d(**self.tensors, **self.geometry)

    def output(self, implementation: str) -> Tensor:
        return deform_conv2d(**self.tensors, **self.geometry, implementation=implementation)

    def gradients(self, output: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        shape = output.shape
        weights = torch.randn(shape, generator=generator, dtype=output.dtype).to(output.device)
        grads = torch.autograd.grad((output * weights).sum(), list(self.tensors.values()))
        return dict(zip(self.tensors, grads, strict=True))


def make_case(
    *,
    images: int = 2,
    channels: int = 4,
    out_channels: int = 4,
    groups: int = 1,
    deform_groups: int = 1,
    size: tuple[int, int] = (5, 6),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    modulated: bool = True,
    bias: bool = True,
    reach: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    out = [
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    ]
    samples = deform_groups * kernel[0] * kernel[1]
    tensors = {
        "input": randn(images, channels, *size),
        "offset": (randn(images, 2 * samples, *out) * reach).detach().requires_grad_(),
        "weight": randn(out_channels, channels // groups, *kernel),
    }
    if bias:
        tensors["bias"] = randn(out_channels)
    if modulated:
        tensors["mask"] = randn(images, samples, *out)
    return Case(tensors, {"stride": stride, "padding": padding, "dilation": dilation})


def assert_same(case: Case, implementation: str, **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-9}
    want, got = case.reference(), case.output(implementation)
    torch.testing.assert_close(got, want, **tolerance)
    got_grads, want_grads = case.gradients(got), case.gradients(want)
    for name, want_grad in want_grads.items():
        torch.testing.assert_close(
            got_grads[name], want_grad, **tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))


@pytest.mark.parametrize("form", OWN_FORMS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    group_channels=st.integers(1, 3),
    groups=st.integers(1, 2),
    deform_groups=st.integers(1, 2),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=pairs,
    dilation=pairs,
    extra_padding=st.integers(0, 2),
    modulated=st.booleans(),
    bias=st.booleans(),
    reach=st.sampled_from([0.3, 2.0, 50.0]),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_equal_torchvision(
    form: str,
    group_channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    extra_padding: int,
    **options,
):
    # Enough padding for any kernel to fit, also on a map that is smaller than the kernel.
    span = [dilation[i] * (kernel[i] - 1) for i in (0, 1)]
    padding = tuple(max(0, -(-(span[i] + 1 - size[i]) // 2)) + extra_padding for i in (0, 1))
    case = make_case(
        channels=group_channels * options["groups"] * options["deform_groups"],
        out_channels=3 * options["groups"],
        size=size,
        kernel=kernel,
        dilation=dilation,
        padding=padding,
        **options,
    )
    assert_same(case, form)


@pytest.mark.parametrize("form", OWN_FORMS)
def test_float32_is_as_exact_as_torchvision(form: str):
    case = make_case(channels=32, out_channels=16, size=(20, 24), dtype=torch.float32)
    case.tensors["weight"].data *= 1 / 17  # outputs of about 1
    exact = Case({k: v.double() for k, v in case.tensors.items()}, case.geometry).reference()
    torch.testing.assert_close(case.output(form).double(), exact, rtol=0, atol=1e-5)


def border_case(position: float, axis: int, dtype: torch.dtype = torch.float64) -> Case:
    """A 1x1 kernel that reads ``position`` on one axis and 1.25 on the other, at every output."""
    case = make_case(images=1, kernel=(1, 1), padding=(0, 0), size=(4, 4), dtype=dtype)
    wanted = torch.full((2, 4, 4), 1.25, dtype=dtype)
    wanted[axis] = position
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    case.tensors["offset"] = (wanted - grid)[None].requires_grad_()
    return case


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("position", [-1e30, -2.0, -1.0, -0.75, 0.0, 2.0, 3.0, 3.5, 4.0, 9.0, 1e30])
def test_border_rule(position: float, axis: int):
    """Partial pixels count between -1 and the size; from there on, the sample is 0."""
    case = border_case(position, axis)
    assert_same(case, "embedding_bag")  # at integers too, where the derivative is one-sided
    torch.testing.assert_close(case.output("grid_sample"), case.reference())
    if position <= -1 or position >= 4:
        bias = case.tensors["bias"][:, None, None].expand(1, -1, 4, 4)
        torch.testing.assert_close(case.output("embedding_bag"), bias)


@pytest.mark.parametrize("form", OWN_FORMS)
@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 2)])
def test_gradients_are_the_derivatives(form: str, groups: int, deform_groups: int):
    case = make_case(
        images=1, size=(3, 4), kernel=(2, 2), groups=groups, deform_groups=deform_groups
    )
    offset = case.tensors["offset"].detach()
    # Keep away from integers, where bilinear interpolation has a kink.
    offset = (offset.floor() + 0.2 + 0.6 * (offset - offset.floor())).requires_grad_()
    tensors = {**case.tensors, "offset": offset}

    def run(*values: Tensor) -> Tensor:
        return Case(dict(zip(tensors, values, strict=True)), case.geometry).output(form)

    assert torch.autograd.gradcheck(run, tuple(tensors.values()), fast_mode=True)


@pytest.mark.parametrize("deform_groups", [1, 2])
def test_columns_in_pieces_are_the_columns_at_once(monkeypatch, deform_groups: int):
    case = make_case(images=3, deform_groups=deform_groups)
    monkeypatch.setattr(deform_gather, "MAX_COLUMN_BYTES", 7 * 4 * 9 * 8)  # seven positions
    assert_same(case, "embedding_bag")


@pytest.mark.parametrize("frozen", ["input", "offset", "weight", "mask"])
def test_gradients_of_the_others_when_one_is_frozen(frozen: str):
    case = make_case()
    want = case.gradients(case.output("embedding_bag"))
    case.tensors[frozen].requires_grad_(False)
    others = {k: v for k, v in case.tensors.items() if k != frozen}
    output = case.output("embedding_bag")
    got = Case(others, {}).gradients(output)
    for name, value in got.items():
        torch.testing.assert_close(value, want[name])


def test_first_step_of_training_follows_torchvision():
    """Offsets are 0 at first, so every sample is at a kink and the border's are at -1 or size."""
    case = make_case(modulated=False)
    case.tensors["offset"] = torch.zeros_like(case.tensors["offset"]).requires_grad_()
    assert_same(case, "embedding_bag")


def test_zero_offsets_are_a_convolution():
    case = make_case(modulated=False, groups=2)
    case.tensors["offset"] = torch.zeros_like(case.tensors["offset"])
    t = case.tensors
    want = nn.functional.conv2d(t["input"], t["weight"], t["bias"], padding=1, groups=2)
    for form in ("torchvision", *OWN_FORMS):
        torch.testing.assert_close(case.output(form), want)


@pytest.mark.parametrize("form", OWN_FORMS)
def test_empty_batch(form: str):
    case = make_case(images=0)
    output = case.output(form)
    assert output.shape == (0, 4, 5, 6)
    grads = case.gradients(output)
    assert grads["weight"].abs().sum() == 0
    assert grads["input"].shape == (0, 4, 5, 6)


def test_nan_offset_gives_nan_and_no_crash():
    case = make_case(images=1, bias=False)
    case.tensors["offset"].data[0, 0, 2, 3] = float("nan")
    nan = case.output("embedding_bag").isnan()
    assert nan[0, :, 2, 3].all()
    assert nan.sum() == 4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_keeps_the_memory_format(layout: torch.memory_format):
    case = make_case()
    want = case.reference()
    case.tensors["input"] = case.tensors["input"].detach().contiguous(memory_format=layout)
    output = case.output("embedding_bag")
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, want)


def test_channels_last_input_is_not_copied(monkeypatch):
    seen = []
    original = deform_forms.gathered_product

    def spy(pixels: Tensor, *args) -> Tensor:
        seen.append(pixels.data_ptr())
        assert pixels.is_contiguous()
        return original(pixels, *args)

    monkeypatch.setattr(deform_forms, "gathered_product", spy)
    case = make_case()
    x = case.tensors["input"].detach().contiguous(memory_format=torch.channels_last)
    case.tensors["input"] = x
    case.output("embedding_bag")
    assert seen == [x.data_ptr()]


# Choice of the implementation


def spy_on(monkeypatch, name: str) -> list[str]:
    calls: list[str] = []
    original = deform_forms.IMPLEMENTATIONS[name]

    def spy(*args):
        calls.append(name)
        return original(*args)

    monkeypatch.setitem(deform_forms.IMPLEMENTATIONS, name, spy)
    return calls


def test_argument_before_context_before_occasion(monkeypatch):
    calls = {name: spy_on(monkeypatch, name) for name in ("torchvision", *OWN_FORMS)}
    case = make_case()
    deform_conv2d(**case.tensors, **case.geometry)
    assert list(map(len, calls.values())) == [0, 1, 0]  # the CPU's own
    with deform_conv_implementation("grid_sample"):
        deform_conv2d(**case.tensors, **case.geometry)
        assert list(map(len, calls.values())) == [0, 1, 1]
        case.output("torchvision")
    assert list(map(len, calls.values())) == [1, 1, 1]
    deform_conv2d(**case.tensors, **case.geometry)
    assert list(map(len, calls.values())) == [1, 2, 1]


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="choose one of embedding_bag"):
        make_case().output("im2col")
    with pytest.raises(ValueError, match="im2col"), deform_conv_implementation("im2col"):
        pass


def test_detectron2_kernel_is_never_replaced_in_silence():
    with pytest.raises(RuntimeError, match="use 'torchvision'"):
        make_case(dtype=torch.float32).output("detectron2")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("offset", (2, 17, 5, 6), "offset must be"),
        ("offset", (2, 18, 4, 6), "offset must be"),
        ("mask", (2, 18, 5, 6), "mask must be"),
        ("bias", (5,), "bias must be"),
        ("weight", (4, 3, 3, 3), "groups"),
        ("weight", (4, 4, 9, 9), "does not fit"),
        ("input", (4, 5, 6), "needs input"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...], message: str):
    case = make_case()
    case.tensors[name] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        case.output("embedding_bag")


# Precision


@pytest.mark.parametrize("form", ["torchvision", *OWN_FORMS])
def test_autocast_computes_in_float32(form: str):
    case = make_case(dtype=torch.float32)
    want = case.output(form)
    with torch.autocast("cpu", torch.bfloat16), deform_conv_implementation(form):
        got = case.output(form)
        half = {k: v.bfloat16() if k == "input" else v for k, v in case.tensors.items()}
        from_half = Case(half, case.geometry).output(form)
    assert torch.equal(got, want)
    assert from_half.dtype == torch.bfloat16
    torch.testing.assert_close(from_half.float(), want, rtol=0.02, atol=0.05)
    for name, grad in case.gradients(got).items():
        assert grad.dtype == torch.float32, name
        assert grad.isfinite().all()


def test_half_precision_positions_are_exact_far_from_the_origin():
    """Column 300.25 does not exist in bfloat16, the offset 0.25 does."""
    x = torch.arange(512.0).expand(1, 1, 1, 512) % 2
    offset = torch.zeros(1, 2, 1, 512)
    offset[:, 1] = 0.25
    weight = torch.ones(1, 1, 1, 1)
    want = deform_conv2d(x, offset, weight)
    for form in ("torchvision", *OWN_FORMS):
        got = deform_conv2d(x.bfloat16(), offset.bfloat16(), weight.bfloat16(), implementation=form)
        torch.testing.assert_close(got.float(), want, rtol=0, atol=0.01)


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["grid_sample", "torchvision", "detectron2"])
@pytest.mark.parametrize("modulated", [False, True])
def test_cuda_equals_cpu(form: str, modulated: bool):
    if form == "detectron2" and not deform_forms.detectron2_kernel_available():
        pytest.skip("this Detectron2 has no CUDA kernels")
    case = make_case(modulated=modulated, dtype=torch.float32)
    on_gpu = Case(
        {k: v.detach().cuda().requires_grad_() for k, v in case.tensors.items()}, case.geometry
    )
    want, got = case.reference(), on_gpu.output(form)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-4)
    want_grads = case.gradients(want)
    for name, grad in on_gpu.gradients(got).items():
        torch.testing.assert_close(grad.cpu(), want_grads[name], rtol=1e-3, atol=1e-3)


def test_backward_inside_of_autocast_is_the_one_outside() -> None:
    """Users call ``backward()`` on either side; the kernel stays in float32."""
    gradients = []
    for inside in (False, True):
        torch.manual_seed(0)
        layer = DeformConv2d(8, 8, kernel_size=3, padding=1)
        x = torch.randn(1, 8, 6, 6, requires_grad=True)
        offset = torch.randn(1, 18, 6, 6, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = layer(x, offset).square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        gradients.append((x.grad, offset.grad, layer.weight.grad))
    for outside, within in zip(*gradients, strict=True):
        torch.testing.assert_close(within, outside)
