"""Star-shaped sampling of boxes (VarifocalNet paper, section 4.3)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from vfnet_yolof.layers.deform_conv import IMPLEMENTATIONS, deform_conv_implementation
from vfnet_yolof.layers.star_conv import StarConv2d, StarOffsets, star_points

CPU_FORMS = [name for name in IMPLEMENTATIONS if name != "detectron2"]


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict[str, Tensor]:
    with np.load(data_dir / "units" / "star_dcn.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def sampled_points(offsets: Tensor, row: int, column: int, stride: int) -> Tensor:
    """(9, 2): the (x, y) in pixels that a 3x3 kernel at this cell reads."""
    yx = offsets[0, :, row, column].view(9, 2)
    taps = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    return ((yx + taps + torch.tensor([row, column])) * stride).flip(-1)


def test_nine_points_are_centre_sides_and_corners():
    ltrb = torch.tensor([10.0, 20.0, 30.0, 40.0])
    points = star_points(torch.tensor([[100.0, 200.0]]), ltrb[None])[0]
    assert points.tolist() == [
        [90, 180], [100, 180], [130, 180],
        [90, 200], [100, 200], [130, 200],
        [90, 240], [100, 240], [130, 240],
    ]  # fmt: skip


def test_offsets_move_the_taps_onto_those_points():
    stride, row, column = 8, 2, 3
    ltrb = torch.rand(1, 4, 4, 5) * 60
    got = sampled_points(StarOffsets()(ltrb, stride), row, column, stride)
    center = torch.tensor([[column * stride, row * stride]], dtype=torch.float32)
    want = star_points(center, ltrb[:, :, row, column])[0]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


def test_box_of_zero_size_reads_its_location_nine_times():
    got = sampled_points(StarOffsets()(torch.zeros(1, 4, 3, 3), 16), 1, 2, 16)
    assert got.tolist() == [[32.0, 16.0]] * 9


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_gradient_is_scaled_and_the_value_is_not(share: float):
    ltrb = (torch.rand(2, 4, 3, 3, dtype=torch.float64) * 40).requires_grad_()
    offsets = StarOffsets(share)(ltrb, 8)
    torch.testing.assert_close(offsets, StarOffsets(1.0)(ltrb, 8))
    offsets[:, 14].sum().backward()  # y of the middle tap of the last row: bottom - 1
    want = torch.zeros_like(ltrb)
    want[:, 3] = share / 8
    torch.testing.assert_close(ltrb.grad, want)


def test_distances_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 4, H, W\)"):
        StarOffsets()(torch.zeros(1, 5, 2, 2), 8)


def test_star_convolution_has_a_weight_and_nothing_else():
    conv = StarConv2d(4, 6)
    assert [(k, tuple(v.shape)) for k, v in conv.state_dict().items()] == [("weight", (6, 4, 3, 3))]


def test_backward_reaches_features_boxes_and_weight():
    conv = StarConv2d(3, 5)
    features = torch.randn(2, 3, 6, 7, requires_grad=True)
    ltrb = (torch.rand(2, 4, 6, 7) * 30).requires_grad_()
    conv(features, StarOffsets()(ltrb, 8)).square().sum().backward()
    for tensor in (features, ltrb, conv.weight):
        assert tensor.grad.abs().sum() > 0


@pytest.mark.golden
@pytest.mark.parametrize("share", ["0.1", "1.0", "0.0"])
@pytest.mark.parametrize("stride", [8, 32, 128])
def test_golden_offsets(golden: dict[str, Tensor], stride: int, share: str):
    case = f"stride{stride}_gm{share}"
    ltrb = golden[f"{case}/bbox_pred"].requires_grad_()
    offsets = StarOffsets(float(share))(ltrb, int(golden[f"{case}/stride"]))
    torch.testing.assert_close(offsets, golden[f"{case}/offsets"], rtol=1e-6, atol=1e-5)
    (offsets * golden[f"{case}/loss_weights"]).sum().backward()
    want = torch.zeros_like(ltrb) if share == "0.0" else golden[f"{case}/grad_bbox_pred"]
    torch.testing.assert_close(ltrb.grad, want, rtol=1e-5, atol=1e-6)


def test_weights_start_as_the_reference_has_them():
    """Normal with std 0.01, as all of the head's; a uniform start at this width has 0.0120."""
    torch.manual_seed(0)
    weight = StarConv2d(256, 256).weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.005)
    assert weight.mean().abs() < 1e-4
    assert weight.abs().max() > 0.03


@pytest.mark.golden
@pytest.mark.parametrize("form", CPU_FORMS)
@pytest.mark.parametrize("case", ["star_dconv", "star_dconv_map_smaller_than_kernel"])
def test_golden_star_convolution(golden: dict[str, Tensor], case: str, form: str):
    features = golden[f"{case}/feat"].clone().requires_grad_()
    ltrb = golden[f"{case}/bbox_pred"].clone().requires_grad_()
    weight = golden[f"{case}/weight"]
    conv = StarConv2d(weight.shape[1], weight.shape[0])
    conv.load_state_dict({"weight": weight})
    offsets = StarOffsets(0.1)(ltrb, int(golden[f"{case}/stride"]))
    with deform_conv_implementation(form):
        output = conv(features, offsets)
    torch.testing.assert_close(output, golden[f"{case}/output"], rtol=1e-5, atol=2e-5)
    if case == "star_dconv":  # the other case has no gradients
        (output * golden[f"{case}/loss_weights"]).sum().backward()
        for name, tensor in (("feat", features), ("bbox_pred", ltrb), ("weight", conv.weight)):
            want = golden[f"{case}/grad_{name}"]
            torch.testing.assert_close(tensor.grad, want, rtol=1e-4, atol=1e-4)
