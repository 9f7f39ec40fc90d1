"""Whether a detector's strides, distributions and anchors suit the boxes that it is to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.parts import built
from ..data.datasets import dataset_records
from ..data.transforms import AugInput
from .classes import dataset_names

_LOOKED_AT = 500  # images
_WORTH_SAYING = 0.05  # share of the boxes
_RATIO = 3.0  # of a box's side to its nearest anchor's, from which on they hardly overlap


def advice(cfg: DictConfig, model: nn.Module) -> list[str]:
    """Sentences about boxes that the configured detector can hardly learn, with what to change.

    Args:
        cfg: the prepared config. Boxes count at the size that its test images have.
        model: built from it; one without strides and anchors of this project's gets no advice.
    """
    sides = box_sides(cfg)
    if not len(sides):
        return []
    strides = getattr(getattr(model, "points", None), "strides", ())
    sizes = OmegaConf.select(cfg, "model.anchor_generator.sizes")
    return [
        *_of_strides(sides, strides),
        *_of_reach(sides, strides, model),
        *_of_anchors(sides, sizes),
    ]


def box_sides(cfg: DictConfig) -> np.ndarray:
    """(N, 2) width and height in px of training boxes, as the model gets them at test time.

    (0, 2) where the config does not say what they are or how images are resized.
    """
    key = "dataloader.test.mapper.augmentations"
    names = dataset_names(cfg)
    if OmegaConf.select(cfg, key) is None or not names:
        return np.empty((0, 2))
    resize = T.AugmentationList(list(built(key, OmegaConf.select(cfg, key))))
    return _box_sides([record for name in names for record in dataset_records(name)], resize)


def _box_sides(records: Sequence[dict[str, Any]], resize: T.AugmentationList) -> np.ndarray:
    found = [np.empty((0, 2))]
    for record in records[:: max(1, len(records) // _LOOKED_AT)]:
        boxes = np.array([a["bbox"] for a in record.get("annotations", ())], float).reshape(-1, 4)
        if len(boxes) and record.get("height"):
            canvas = np.zeros((record["height"], record["width"], 3), np.uint8)
            boxes[:, 2:] += boxes[:, :2]  # from x, y, w, h
            resized = AugInput(canvas, boxes)
            resize(resized)
            found.append(resized.boxes[:, 2:] - resized.boxes[:, :2])
    sides = np.concatenate(found)
    return sides[(sides > 0).all(axis=1)]


def _of_strides(sides: np.ndarray, strides: Sequence[int]) -> list[str]:
    if not strides:
        return []
    share = float((sides.min(axis=1) < strides[0]).mean())
    if share < _WORTH_SAYING:
        return []
    return [
        f"{share:.0%} of the boxes have a side below {strides[0]} px, the finest stride, at the "
        "size of the test images: use larger images (short_edge_length of dataloader.train.mapper "
        "and dataloader.test.mapper) or cut them into parts."
    ]


def _of_reach(sides: np.ndarray, strides: Sequence[int], model: nn.Module) -> list[str]:
    """Of distributions over distances, which end at ``reg_max`` strides."""
    representation = getattr(model, "representation", None)
    reg_max = getattr(representation, "reg_max", None)
    if not strides or reg_max is None:
        return []
    reach = reg_max * getattr(representation, "interval", 1.0)
    # ATSS puts a box on the level whose anchors, of 8 strides, are nearest to it.
    anchors = 8.0 * np.array(strides)
    nearest = np.abs(np.log(np.sqrt(sides.prod(axis=1))[:, None] / anchors)).argmin(axis=1)
    longest = sides.max(axis=1) / 2 / np.array(strides)[nearest]  # from the middle of the box
    share = float((longest > reach).mean())
    if share < _WORTH_SAYING:
        return []
    return [
        f"{share:.0%} of the boxes are longer than reg_max={reg_max} lets the head say from their "
        f"middle: set reg_max to {int(np.ceil(np.quantile(longest, 0.99)))} or more "
        "(model.head.representation.reg_max, or MODEL.GFL.REG_MAX)."
    ]


def _of_anchors(sides: np.ndarray, sizes: Sequence[Sequence[float]] | None) -> list[str]:
    if not sizes:
        return []
    anchors = np.array([size for level in sizes for size in level], float)
    ratio = np.sqrt(sides.prod(axis=1))[:, None] / anchors
    far = np.maximum(ratio, 1 / ratio).min(axis=1) > _RATIO
    if far.mean() < _WORTH_SAYING:
        return []
    low, high = np.quantile(np.sqrt(sides.prod(axis=1)), [0.02, 0.98])
    return [
        f"{far.mean():.0%} of the boxes are more than {_RATIO:g} times smaller or larger than any "
        f"anchor ({anchors.min():g} to {anchors.max():g} px): most are {low:.0f} to {high:.0f} px "
        "at the size of the test images; set model.anchor_generator.sizes, or use larger images."
    ]
