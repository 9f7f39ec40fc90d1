"""Models and images to measure with: random, but alive."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.read import ConfigSource

# Of random weights nobody knows how many boxes they find; with this many above the threshold the
# suppression of duplicates has as much to do as in a crowded image.
CANDIDATES_PER_IMAGE = 1000


def build_model(config: ConfigSource, inputs: list[dict[str, Any]], seed: int = 0) -> nn.Module:
    """A configuration's model for inference, with random weights that find boxes in ``inputs``.

    Batch norms have the statistics of ``inputs``, so activations neither vanish nor explode.
    """
    torch.manual_seed(seed)
    model = read_inference_config(config).build_model().eval()
    settle_norms(model, inputs)
    settle_threshold(model, inputs)
    return model


def pictures(
    count: int, size: tuple[int, int], *, boxes: int = 0, num_classes: int = 80, seed: int = 0
) -> list[dict[str, Any]]:
    """Detectron2's input dicts: noise of ``size`` (H, W) at several scales.

    boxes: random ground-truth boxes of each image; with 0 there is no ground truth.
    """
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(count):
        image = torch.zeros(1, 3, *size)
        for scale in (1, 8, 64):
            coarse = [max(1, side // scale) for side in size]
            noise = torch.rand((1, 3, *coarse), generator=generator)
            image += torch.nn.functional.interpolate(noise, size=size, mode="bilinear") / 3
        one: dict[str, Any] = {"image": (image[0] * 255).to(torch.uint8)}
        one["height"], one["width"] = size
        if boxes:
            one["instances"] = random_instances(boxes, size, num_classes, generator)
        result.append(one)
    return result


def random_boxes(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(count, 4) xyxy pixels inside of ``size`` (H, W), sides from 1/20 to 1/2 of the image's."""
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = extent * (0.05 + 0.45 * torch.rand((count, 2), generator=generator))
    corner = torch.rand((count, 2), generator=generator) * (extent - sides)
    return torch.cat([corner, corner + sides], dim=1)


def random_instances(
    count: int, size: tuple[int, int], num_classes: int, generator: torch.Generator
) -> Instances:
    """Ground truth with ``count`` random boxes."""
    return Instances(
        size,
        gt_boxes=Boxes(random_boxes(count, size, generator)),
        gt_classes=torch.randint(num_classes, (count,), generator=generator),
    )


@torch.no_grad()
def settle_norms(model: nn.Module, inputs: list[dict[str, Any]]) -> None:
    """Give every normalisation with running statistics those of what it sees."""

    def settle(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(args[0], dim=(0, 2, 3))
        module.running_mean.copy_(mean)
        # A channel that hardly moves would be blown up, and its rounding errors with it.
        module.running_var.copy_(variance.maximum(0.25 * variance.mean()))

    handles = [
        module.register_forward_pre_hook(settle)
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None
    ]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def settle_threshold(model: nn.Module, inputs: list[dict[str, Any]]) -> None:
    """Set the score threshold so that about ``CANDIDATES_PER_IMAGE`` scores pass it."""
    outputs: list[Any] = []
    handle = model.head.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        model(inputs)
    finally:
        handle.remove()
    logits = torch.cat([x.flatten() for x in outputs[0].logits])
    count = min(CANDIDATES_PER_IMAGE * len(inputs), len(logits))
    model.postprocessor.score_thresh = float(logits.topk(count).values[-1].sigmoid())
