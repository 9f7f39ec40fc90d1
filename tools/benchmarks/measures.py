"""What is measured of detectors: inference, training steps, assignment, losses, suppression."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn
from vfnet_yolof.layers.star_conv import StarConv2d, StarOffsets
from vfnet_yolof.modeling.postprocess import PostProcessor
from vfnet_yolof.optimization import optimize

from .floor import FORMATS, record_products, replay
from .models import build_model, pictures, random_boxes
from .peers import PeerMissing, build_peer, peer_run
from .timing import Comparison, Run, compare

FLOOR = "convolution floor"


@dataclass(frozen=True)
class Settings:
    """How to measure. ``size``: (H, W) of the images in pixels."""

    device: str = "cpu"
    repeats: int = 9
    warmup: int = 2
    batch: int = 1
    size: tuple[int, int] = (480, 640)
    boxes: int = 10

    def compare(self, variants: dict[str, Run]) -> Comparison:
        return compare(variants, repeats=self.repeats, warmup=self.warmup, device=self.device)


@dataclass
class Report:
    """A comparison, what it is of, and what else there is to say."""

    title: str
    comparison: Comparison
    notes: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "notes": self.notes,
            "variants": self.comparison.as_dict(),
        }


def inference(
    config: str, settings: Settings, *, compiled: bool = False, peer: bool = True
) -> Report:
    """A detector eager, with channels last, optimised, its peer and the convolution floor."""
    inputs = pictures(settings.batch, settings.size)
    device = torch.device(settings.device)
    model = build_model(config, inputs)
    notes: dict[str, Any] = {}
    variants: dict[str, Run] = {}
    if peer:
        try:
            peer_model = build_peer(model).to(device)
            theirs = peer_run(peer_model, inputs, swap_channels=model.input_format == "RGB")
            variants["MMDetection"] = without_grad(theirs)
        except PeerMissing as reason:
            notes["MMDetection"] = str(reason)
    model = model.to(device)
    variants["eager"] = without_grad(lambda: model(inputs))
    models = {"optimised": optimize(model)}
    if device.type == "cuda":
        models["optimised float16"] = optimize(model, dtype=torch.float16)
        models["optimised bfloat16"] = optimize(model, dtype=torch.bfloat16)
    if compiled:
        models["compiled"] = optimize(model, compile=True)
    for name, one in models.items():
        variants[name] = without_grad(lambda one=one: one(inputs))
    # The results are compared before the times are.
    want = [x["instances"] for x in variants["eager"]()]
    notes["agreement with eager"] = {
        name: agreement([x["instances"] if isinstance(x, dict) else x for x in run()], want)
        for name, run in variants.items()
        if name != "eager"
    }
    calls = record_products(model, variants["eager"])
    notes["GFLOP"] = sum(call.flops for call in calls) / 1e9
    for name, memory_format in FORMATS.items():
        run = replay(calls, memory_format=memory_format, device=device)
        variants[f"{FLOOR} ({name})"] = run
    notes["idle share of the device"] = idle_share(variants["optimised"], device)
    return Report(f"inference {config}", settings.compare(variants), notes)


def floor_of(comparison: Comparison) -> str:
    """The name of the faster one of the floors, in either memory format."""
    return comparison.fastest(*(f"{FLOOR} ({name})" for name in FORMATS))


def agreement(got: list[Instances], want: list[Instances]) -> dict[str, float]:
    """How far detections are from each other.

    ``boxes_px``: of the 99 % of the boxes that are nearest to one of the same class, the largest
    difference of a coordinate; ``scores``: the largest difference of the sorted scores; ``counts``:
    the difference of the numbers of detections.
    """
    boxes, scores, counts = [0.0], [0.0], 0
    for one, other in zip(got, want, strict=True):
        counts += abs(len(one) - len(other))
        common = min(len(one), len(other))
        if common == 0:
            continue
        gap = (one.scores.float()[:common] - other.scores.float()[:common]).abs().max()
        scores.append(float(gap))
        distance = one.pred_boxes.tensor.float()[:, None] - other.pred_boxes.tensor.float()
        other_class = one.pred_classes[:, None] != other.pred_classes
        nearest = (distance.abs().amax(-1) + 1e6 * other_class).amin(1)
        boxes.append(float(nearest.quantile(0.99, interpolation="lower")))
    return {"boxes_px": max(boxes), "scores": max(scores), "counts": float(counts)}


def idle_share(run: Run, device: torch.device) -> float | None:
    """Share of the time of a run in which a GPU has nothing to do; None on the CPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    from .timing import time_once

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(device)
    busy = sum(e.device_time_total for e in profiler.key_averages()) / 1e6
    return max(0.0, 1.0 - busy / min(time_once(run, device) for _ in range(5)))


def train_step(
    model: nn.Module, inputs: list[dict[str, Any]], *, amp_dtype: torch.dtype | None = None
) -> Run:
    """Forward, backward and update of ``model``, which is changed; see ``train.amp``.

    In float16 losses are scaled, as in a training.
    """
    model.train()
    device = next(model.parameters()).device.type
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-5, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=amp_dtype is torch.float16)

    def run() -> None:
        with torch.autocast(device, dtype=amp_dtype, enabled=amp_dtype is not None):
            losses = model(inputs)
        loss = sum(losses.values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    from detectron2.utils.events import EventStorage

    def with_storage() -> None:
        with EventStorage():
            run()

    return with_storage


def model_and_batch(
    config: str, settings: Settings, boxes: int
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A model on the device, and images with so many boxes of its classes each."""
    model = build_model(config, pictures(settings.batch, settings.size)).to(settings.device)
    classes = model.num_classes
    return model, pictures(settings.batch, settings.size, boxes=boxes, num_classes=classes)


def training(config: str, settings: Settings) -> Report:
    """A training step by what ``train.channels_last`` and ``train.amp`` change, and its losses."""
    model, inputs = model_and_batch(config, settings, settings.boxes)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    ways: dict[str, tuple[nn.Module, torch.dtype | None]] = {
        "eager": (model, None),
        "channels last": (last, None),
        "bfloat16": (copy.deepcopy(model), torch.bfloat16),
        "bfloat16, channels last": (copy.deepcopy(last), torch.bfloat16),
    }
    if torch.device(settings.device).type == "cuda":
        ways["float16"] = (copy.deepcopy(model), torch.float16)
        ways["float16, channels last"] = (copy.deepcopy(last), torch.float16)
    notes = {
        "agreement with eager": {
            name: gradient_agreement(one, model, inputs, amp_dtype=dtype)
            for name, (one, dtype) in ways.items()
            if name != "eager"
        }
    }
    losses = losses_alone(model, inputs)
    variants = {
        name: train_step(one, inputs, amp_dtype=dtype) for name, (one, dtype) in ways.items()
    }
    variants["assignment and losses"] = losses
    return Report(f"training step {config}", settings.compare(variants), notes)


def gradient_agreement(
    model: nn.Module,
    reference: nn.Module,
    inputs: list[dict[str, Any]],
    *,
    amp_dtype: torch.dtype | None = None,
) -> dict[str, float | None]:
    """Largest relative difference of a loss, and of the norm of all gradients as one vector.

    amp_dtype: of ``model``; the reference computes in float32. None: a number has overflowed.
    """
    from detectron2.utils.events import EventStorage

    found = []
    # Small gradients vanish in float16 unless they are scaled, as in a training.
    scale = 128.0 if amp_dtype is torch.float16 else 1.0
    for one, dtype in ((model, amp_dtype), (reference, None)):
        one.train()
        device = next(one.parameters()).device.type
        autocast = torch.autocast(device, dtype=dtype, enabled=dtype is not None)
        with EventStorage(), autocast:
            losses = one(inputs)
        names = [name for name, p in one.named_parameters() if p.requires_grad]
        parameters = dict(one.named_parameters())
        total = scale * sum(losses.values())
        grads = torch.autograd.grad(total, [parameters[name] for name in names])
        found.append((losses, {n: g / scale for n, g in zip(names, grads, strict=True)}))
    (losses, grads), (want_losses, want) = found
    gap = sum(float((grads[name] - want[name]).square().sum()) for name in want)
    norm = sum(float(x.square().sum()) for x in want.values())
    found_gaps = {
        "losses": max(abs(1 - losses[k].item() / v.item()) for k, v in want_losses.items()),
        "gradients": (gap / norm) ** 0.5,
    }
    return {name: x if math.isfinite(x) else None for name, x in found_gaps.items()}


def losses_alone(model: nn.Module, inputs: list[dict[str, Any]]) -> Run:
    """Assignment and losses of a batch, and their gradients, on features computed beforehand."""
    from detectron2.utils.events import EventStorage

    model.train()
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        features = [features[name] for name in model.head_in_features]
        predictions = model.head(features)
    leaves: list[Tensor] = []

    def as_leaf(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Tensor):
            leaves.append(value.detach().requires_grad_())
            return leaves[-1]
        return [as_leaf(x) for x in value]

    predictions = type(predictions)(*(as_leaf(x) for x in predictions))
    boxes = [x["instances"].to(images.tensor.device) for x in inputs]

    def run() -> None:
        with EventStorage():
            losses = model.forward_training(images, features, predictions, boxes)
        torch.autograd.grad(sum(losses.values()), leaves, allow_unused=True)

    return run


def star_convolution(settings: Settings) -> Report:
    """The star convolution of 256 channels on a map of 60 x 80 and torchvision's operator."""
    from vfnet_yolof.layers.deform_conv import deform_conv_implementation

    generator = torch.Generator().manual_seed(0)
    device = torch.device(settings.device)
    layer = StarConv2d(256, 256).to(device)
    x = torch.randn(1, 256, 60, 80, generator=generator).to(device)
    ltrb = (torch.rand(1, 4, 60, 80, generator=generator) * 64).to(device)
    offsets = StarOffsets()(ltrb, 8)

    def forward(name: str, x: Tensor) -> Run:
        def run() -> None:
            with torch.inference_mode(), deform_conv_implementation(name):
                layer(x, offsets)

        return run

    def both(name: str, x: Tensor) -> Run:
        def run() -> None:
            leaf, moved = x.detach().requires_grad_(), offsets.detach().requires_grad_()
            with deform_conv_implementation(name):
                layer(leaf, moved).sum().backward()
            layer.weight.grad = None

        return run

    last = x.contiguous(memory_format=torch.channels_last)
    ours = "embedding_bag" if device.type == "cpu" else "torchvision"
    variants = {
        "torchvision, forward": forward("torchvision", x),
        "ours, forward": forward(ours, last),
        "torchvision, forward and backward": both("torchvision", x),
        "ours, forward and backward": both(ours, last),
    }
    return Report("star convolution, 256 channels, 60 x 80", settings.compare(variants))


def assignment(settings: Settings) -> Report:
    """ATSS and uniform matching with few and many boxes."""
    from vfnet_yolof.modeling.assigners import ATSSAssigner, UniformAssigner
    from vfnet_yolof.modeling.points import PointGenerator

    generator = torch.Generator().manual_seed(0)
    device = torch.device(settings.device)
    size = (800, 1312)
    points = PointGenerator()
    sizes = [(-(-size[0] // s), -(-size[1] // s)) for s in points.strides]
    anchors = points.grid(sizes, device).anchors
    level_sizes = [h * w for h, w in sizes]
    few = random_boxes(25 * 42 * 5, size, generator).to(device)
    pred_boxes = few + 8 * torch.randn(few.shape, generator=generator).to(device)
    atss, uniform = ATSSAssigner(), UniformAssigner()
    variants: dict[str, Run] = {}
    for count in (100, 500, 1000, 5000):
        boxes = random_boxes(count, size, generator).to(device)
        variants[f"ATSS, {count} boxes"] = lambda boxes=boxes: atss(
            anchors, boxes, level_sizes=level_sizes
        )
        variants[f"uniform, {count} boxes"] = lambda boxes=boxes: uniform(
            few, boxes, pred_boxes=pred_boxes
        )
    notes = {"locations": len(anchors), "anchors of uniform matching": len(few)}
    return Report("assignment", settings.compare(variants), notes)


def losses(config: str, settings: Settings) -> Report:
    """Assignment and losses, with few and with many boxes in each image."""
    variants: dict[str, Run] = {}
    for count in (settings.boxes, 10 * settings.boxes, 100 * settings.boxes):
        model, inputs = model_and_batch(config, settings, count)
        variants[f"{count} boxes"] = losses_alone(model, inputs)
    return Report(f"assignment and losses {config}", settings.compare(variants))


def postprocess(settings: Settings) -> Report:
    """Choice, decoding and suppression of candidates among 22,000 locations of 80 classes."""
    generator = torch.Generator().manual_seed(0)
    device = torch.device(settings.device)
    sizes = [16400, 4100, 1025, 273, 77]
    # About one score in fifty passes the threshold of 0.05.
    logits = [1.5 * torch.randn(n, 80, generator=generator).to(device) - 6 for n in sizes]
    boxes = [random_boxes(n, (800, 1312), generator).to(device) for n in sizes]

    def decode(level: int, index: Tensor) -> Tensor:
        return boxes[level][index]

    variants: dict[str, Run] = {}
    for mode in ("pair", "location"):
        for threshold in (0.05, 0.3):
            processor = PostProcessor(score_thresh=threshold, candidates=mode)
            variants[f"{mode}, scores above {threshold}"] = without_grad(
                lambda processor=processor: processor(logits, decode, (800, 1312))
            )
    return Report("post-processing", settings.compare(variants))


def without_grad(run: Callable[[], Any]) -> Run:
    """``run`` in inference mode."""

    def wrapped() -> Any:
        with torch.inference_mode():
            return run()

    return wrapped


def representations(general: str, dirac: str, settings: Settings) -> Report:
    """Training step and inference of GFL with a distribution of each side, and with a number."""
    variants: dict[str, Run] = {}
    for name, config in (("general", general), ("Dirac", dirac)):
        model, inputs = model_and_batch(config, settings, settings.boxes)
        fast = optimize(model)
        variants[f"inference, {name}"] = without_grad(lambda fast=fast, inputs=inputs: fast(inputs))
        variants[f"training step, {name}"] = train_step(model, inputs)
    return Report("representations of box sides", settings.compare(variants))
