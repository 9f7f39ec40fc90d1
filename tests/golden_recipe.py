"""Parameters and inputs of the reference numbers, made by the recipe that comes with them.

``golden`` is always the folder ``tests/data/detectors``.
"""

import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Which images a reference saw, where they are not those of ``recipe.json``."""

    boxes: str = "inputs.npz"  # the file with their boxes
    size: tuple[int, int] | None = None  # height, width
    seed: int | None = None


def make_parameter(key: str, shape: list[int], rules: list[dict]) -> np.ndarray | None:
    """The value of one state_dict entry of the reference, or None where it stays as built."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    rule = next(
        r
        for r in rules
        if re.search(r["pattern"], key)
        and r.get("min_ndim", 0) <= len(shape) <= r.get("max_ndim", 99)
    )
    kind = rule["kind"]
    if kind == "keep":
        return None
    if kind == "const":
        value = np.full(shape, rule["value"])
    elif kind == "affine":
        value = rule["mean"] + rule["std"] * rng.standard_normal(shape)
    elif kind == "uniform":
        value = rule["low"] + rule["width"] * rng.random(shape)
    else:
        value = rule["gain"] * rng.standard_normal(shape) / math.sqrt(np.prod(shape[1:]))
    return np.asarray(value, np.float32)


def reference_state_dict(golden: Path, name: str, rules_name: str) -> dict[str, Tensor]:
    """All parameters of a reference model under the reference's own keys."""
    rules = json.loads((golden / "recipe.json").read_text())[rules_name]
    keys = json.loads((golden / f"{name}.keys.json").read_text())
    state = {}
    for key, shape in keys.items():
        value = make_parameter(key, shape, rules)
        if value is None:
            continue
        tensor = torch.from_numpy(np.array(value))
        state[key] = tensor.to(torch.int64) if key.endswith("num_batches_tracked") else tensor
    return state


def make_images(golden: Path, images: Images = Images()) -> np.ndarray:
    """The images of the reference numbers: uint8, shape (2, 3, H, W), channels B, G, R.

    Patches of 16 x 16 pixels of one random colour each, with noise of up to 24 on every value.
    """
    rule = json.loads((golden / "recipe.json").read_text())["images"]
    number, (height, width) = rule["n"], images.size or (rule["h"], rule["w"])
    rng = np.random.default_rng(rule["img_seed"] if images.seed is None else images.seed)
    colors = rng.integers(0, 256, (number, 3, math.ceil(height / 16), math.ceil(width / 16)))
    patches = colors.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    noise = rng.integers(-24, 25, (number, 3, height, width))
    return (patches + noise).clip(0, 255).astype(np.uint8)


def batch(golden: Path, case: str, *, rgb: bool, images: Images = Images()) -> list[dict]:
    """Detectron2's batched inputs for a case: ``main``, ``img1_empty``, ``all_empty``, ``uneven``.

    ``uneven`` crops image 1 to its top left 200 x 250 pixels.
    """
    inputs = np.load(golden / images.boxes)
    with_boxes = {"img1_empty": (0,), "all_empty": ()}.get(case, (0, 1))
    items = []
    for i, image in enumerate(torch.from_numpy(make_images(golden, images))):
        if case == "uneven" and i == 1:
            image = image[:, :200, :250]
        if rgb:
            image = image.flip(0)
        boxes = torch.from_numpy(inputs[f"gt/{i}/boxes"].copy())
        labels = torch.from_numpy(inputs[f"gt/{i}/labels"].copy())
        if i not in with_boxes:
            boxes, labels = boxes[:0], labels[:0]
        instances = Instances(tuple(image.shape[-2:]), gt_boxes=Boxes(boxes), gt_classes=labels)
        items.append({"image": image, "instances": instances})
    return items
