"""A checkpoint of random weights that detects something in every image, and such images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from PIL import Image
from vfnet_yolof.config.saved import config_text

CLASS_NAMES = ["ant", "bee", "cat"]
SIZES = ((60, 80), (100, 50), (40, 200), (64, 64))  # height, width


def write_detector(folder: Path, config: DictConfig) -> None:
    """Write ``tiny.pth`` with its config, whose test images have a shorter side of 64 px."""
    config.dataloader.test.mapper.augmentations = [
        {
            "_target_": "detectron2.data.transforms.ResizeShortestEdge",
            "short_edge_length": 64,
            "max_size": 100,
        }
    ]
    torch.manual_seed(0)
    model = instantiate(config.model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.5)
    torch.nn.init.zeros_(model.head.cls_logits.bias)
    content = {
        "model": model.state_dict(),
        "class_names": CLASS_NAMES,
        "config": config_text(config),
    }
    torch.save(content, folder / "tiny.pth")


def write_images(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Write ``0.png``, ``1.png``, ... of coarse noise."""
    folder.mkdir(exist_ok=True)
    for i, size in enumerate(sizes):
        noise = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size[::-1]).save(folder / f"{i}.png")
