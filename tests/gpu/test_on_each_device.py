"""What has to hold on a GPU as on the CPU: mixed and half precision, memory, resuming.

``make test-gpu`` runs those of a GPU, with the reference numbers of ``tests/golden``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import vfnet_yolof
from benchmarks.measures import agreement
from benchmarks.models import pictures, settle_norms, settle_threshold
from benchmarks.timing import peak_memory
from detectron2.utils.events import EventStorage
from devices import on_each_device
from tiny import empty_picture, picture, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import nn
from torchvision.ops import box_iou
from vfnet_yolof.engine.step import TrainStep
from vfnet_yolof.layers.deform_conv import deform_conv2d
from vfnet_yolof.modeling.assigners import ATSSAssigner, UniformAssigner
from vfnet_yolof.modeling.points import PointGenerator

DETECTORS = {"vfnet": tiny_vfnet, "gfl": tiny_gfl, "yolof": tiny_yolof}
# float16 is of GPUs: the CPU's autocast takes bfloat16.
AUTOCAST = {"cpu": ["bfloat16"], "cuda": ["float16", "bfloat16"]}
HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}

# On a map of 1 x 1, as P6 is of smaller images, torch 2.14's convolutions of stride 2 have wrong
# gradients in bfloat16 on the CPU.
SIZE = (160, 160)

each_detector = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full float32 and the same kernels each time: a GPU's convolutions else take TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def alive(make: Callable[[], nn.Module], device: str) -> tuple[nn.Module, list[dict]]:
    """A tiny detector that finds something in its images; these have no ground truth."""
    model = make().eval()
    inputs = pictures(2, (96, 128))
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():  # zero biases and equal weights would hide a lost one
        if hasattr(module, "running_mean"):
            module.weight.data = 0.5 + torch.rand(module.weight.shape, generator=generator)
    settle_norms(model, inputs)
    model.postprocessor.topk_candidates = 30
    settle_threshold(model, inputs)
    return model.to(device), inputs


def found(model: nn.Module, inputs: list[dict]) -> list:
    with torch.inference_mode():
        return [x["instances"].to("cpu") for x in model(inputs)]


@each_detector
@on_each_device
def test_losses_in_mixed_precision_are_float32_and_finite(
    device: str, make: Callable[[], nn.Module]
) -> None:
    """Also of an image without boxes; the step changes weights, which stay in float32."""
    for dtype in AUTOCAST[device]:
        model = make().to(device).train()
        batch = [picture(size=SIZE), empty_picture(size=SIZE)]
        with EventStorage(), torch.autocast(device, getattr(torch, dtype)):
            losses = model(batch)
        assert {x.dtype for x in losses.values()} == {torch.float32}
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        step = TrainStep(model, optimizer, device=device, amp_dtype=dtype)
        with EventStorage():
            # In float16 the first steps may be left out while the scale is found.
            seen = [step(batch, i).losses for i in range(8)]
        assert all(torch.tensor(list(x.values())).isfinite().all() for x in seen)
        changed = {k for k, p in model.named_parameters() if not torch.equal(p, before[k])}
        assert any(k.startswith("head.") for k in changed)
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@on_each_device
def test_deformable_convolution_in_half_precision(device: str) -> None:
    """Output and gradients are near those in float32, and positions are computed in float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, 12, 300, generator=generator).to(device)
    offset = torch.randn(1, 18, 12, 300, generator=generator).to(device)
    weight = torch.randn(8, 8, 3, 3, generator=generator).to(device) / 8
    results = []
    for dtype in (torch.float32, HALF[device]):
        leaves = [t.to(dtype).requires_grad_() for t in (x, weight)]
        out = deform_conv2d(leaves[0], offset.to(dtype), leaves[1], padding=1)
        assert out.dtype == dtype
        results.append([out, *torch.autograd.grad(out.float().square().mean(), leaves)])
    for want, got in zip(*results, strict=True):
        gap = (got.float() - want).norm() / want.norm()
        assert 0 < gap < 0.03


@on_each_device
def test_optimised_detectors_find_the_same(device: str, exact: None) -> None:
    for make in DETECTORS.values():
        model, inputs = alive(make, device)
        want, got = found(model, inputs), found(vfnet_yolof.optimize(model), inputs)
        gaps = agreement(got, want)
        assert gaps["boxes_px"] < 0.05 and gaps["scores"] < 1e-3 and gaps["counts"] <= 1
        assert min(len(x) for x in want) > 3, "an empty result compares nothing"


@on_each_device
def test_optimised_yolof_in_half_precision(device: str, exact: None) -> None:
    model, inputs = alive(tiny_yolof, device)
    fast = vfnet_yolof.optimize(model, dtype=HALF[device])
    assert {x.dtype for x in fast.head.parameters()} == {HALF[device]}
    for want, got in zip(found(model, inputs), found(fast, inputs), strict=True):
        assert got.pred_boxes.tensor.dtype == got.scores.dtype == torch.float32
        assert got.pred_boxes.tensor.isfinite().all()
        overlap = box_iou(want.pred_boxes.tensor, got.pred_boxes.tensor).amax(1)
        assert overlap.median() > 0.6  # random weights have no clear winners


@on_each_device
def test_thousands_of_boxes_in_bounded_memory(device: str) -> None:
    """All pairs of 5,000 boxes and 16,368 locations would be 312 MiB of float32."""
    generator = torch.Generator().manual_seed(0)
    points = PointGenerator()
    sizes = [(-(-768 // s), -(-1024 // s)) for s in points.strides]
    anchors = points.grid(sizes, torch.device(device)).anchors
    level_sizes = [h * w for h, w in sizes]
    corner = torch.rand(5000, 2, generator=generator) * torch.tensor([900.0, 650.0])
    boxes = torch.cat([corner, corner + 8 + 90 * torch.rand(5000, 2, generator=generator)], dim=1)
    boxes = boxes.to(device)
    single = anchors[:4000]
    runs = (
        lambda: ATSSAssigner()(anchors, boxes, level_sizes=level_sizes),
        lambda: UniformAssigner()(single, boxes, pred_boxes=single),
    )
    for run in runs:
        run()
        assert 0 < peak_memory(run, torch.device(device)) < 128 * 2**20


@on_each_device
def test_a_resumed_run_equals_one_that_was_not_stopped(
    device: str, exact: None, make_toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and momentum bit for bit; the toy detector's dropout draws on the device."""
    options = [f"train.device={device}", "train.max_iter=9"]
    whole, stopped = make_toy("whole"), make_toy("stopped")
    assert whole.run(*options) == 0
    monkeypatch.setenv("TOY_RAISE_AT", "6")
    assert stopped.run(*options) == 1
    assert not (stopped.output_dir / "model_final.pth").exists()
    monkeypatch.delenv("TOY_RAISE_AT")
    assert stopped.run("--resume", *options) == 0
    one, other = whole.load(), stopped.load()
    assert one["iteration"] == other["iteration"] == 8
    assert all(torch.equal(x, other["model"][k]) for k, x in one["model"].items())
    states = [x["trainer"]["optimizer"]["state"].values() for x in (one, other)]
    momenta = [(a["momentum_buffer"], b["momentum_buffer"]) for a, b in zip(*states, strict=True)]
    assert momenta and all(torch.equal(a, b) for a, b in momenta)
