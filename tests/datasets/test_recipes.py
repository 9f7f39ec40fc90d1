"""The data of the papers' recipes, against the numbers of their sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from vfnet_yolof.config.packaged import config_dir
from vfnet_yolof.data import Mosaic, build_train_loader


def dataloader(name: str) -> Any:
    return LazyConfig.load(str(config_dir() / f"common/data/{name}.py")).dataloader


def options(augmentation: Any) -> dict[str, Any]:
    """The class's name and what it was given, as far as numbers go."""
    given = {k: v for k, v in vars(augmentation).items() if not k.startswith("_")}
    return {"": type(augmentation).__name__} | given


SHIFT = {"": "RandomShift", "max_shift": 32, "prob": 0.5}
FLIP = {"": "RandomFlip", "prob": 0.5, "horizontal": True, "vertical": False}
STEPS: dict[str, list[dict[str, Any]]] = {
    "coco": [{"": "ResizeShortestEdge", "short_edge_length": (800, 800), "max_size": 1333}, FLIP],
    "coco_yolof": [{"short_edge_length": (800, 800), "max_size": 1333}, FLIP, SHIFT],
    "coco_yolof_ms": [
        {"short_edge_length": [400, 1400], "max_size": 1600, "is_range": True},
        FLIP,
        SHIFT,
    ],
    "coco_csp": [
        {"": "JitterCrop", "ratio": 0.3},
        {"": "ResizeSquare", "size": 640, "scale": (0.8, 1.2)},
        {"": "RandomDistort", "hue": 0.1, "saturation": 1.5, "exposure": 1.5},
        FLIP,
        SHIFT,
    ],
    "coco_vfnetx": [
        {"": "RelativeRangeCrop", "min_share": 0.75, "prob": 0.5},
        {"": "ResizeIndependentEdges", "long_edge": (750, 2100), "short_edge": (500, 1400)},
        {"": "CutOut", "num_holes": (5, 10), "prob": 0.5, "fill": 0},
        FLIP,
    ],
}
# channel order, interpolation, images a batch, what a test picture of 480 x 640 px becomes
REST = {
    "coco": ("RGB", "opencv", 16, (800, 1067)),
    "coco_yolof": ("BGR", "pil", 64, (800, 1067)),
    "coco_yolof_ms": ("BGR", "pil", 64, (800, 1067)),
    "coco_csp": ("BGR", "pil", 64, (608, 608)),
    "coco_vfnetx": ("RGB", "opencv", 16, (800, 1067)),
}


@pytest.mark.parametrize("name", STEPS)
def test_recipe(name: str) -> None:
    loaders = dataloader(name)
    train, test = (instantiate(loaders[split].mapper) for split in ("train", "test"))
    steps = train.augmentations.augs
    assert len(steps) == len(STEPS[name])
    for step, expected in zip(steps, STEPS[name], strict=True):
        assert expected.items() <= options(step).items()
    order, interpolation, batch, size = REST[name]
    for mapper in (train, test):
        assert (mapper.image_format, mapper.interpolation) == (order, interpolation)
    assert loaders.train.total_batch_size == batch
    assert loaders.train.dataset.filter_empty
    assert not loaders.test.dataset.filter_empty
    picture = T.AugInput(np.zeros((480, 640, 3), dtype=np.uint8))
    test.augmentations(picture)
    assert picture.image.shape[:2] == size


def test_mosaic_of_the_recipe(records) -> None:
    loaders = dataloader("coco_csp")
    mosaic = instantiate(loaders.train.mosaic)
    assert (mosaic.size, mosaic.min_offset, mosaic.prob) == (640, 0.2, 0.5)
    assert all("mosaic" not in dataloader(n).train for n in STEPS if n != "coco_csp")
    mapper = instantiate(loaders.train.mapper)
    loader = build_train_loader(records, mapper, 4, seed=0, mosaic=Mosaic(prob=1.0))
    for sample in next(iter(loader)):
        assert sample["image"].shape == (3, 640, 640)
        boxes = sample["instances"].gt_boxes.tensor
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= 640).all()


def test_vfnetx_trains_on_what_it_draws(records) -> None:
    mapper = instantiate(dataloader("coco_vfnetx").train.mapper)
    loader = build_train_loader(records[:2], mapper, 2, seed=0)
    for sample in next(iter(loader)):
        height, width = sample["image"].shape[1:]
        assert max(height, width) <= 2100
        assert min(height, width) <= 1400
        assert sample["instances"].image_size == (height, width)
