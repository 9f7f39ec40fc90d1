"""Weights, pictures and data sets that the commands are given."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image
from vfnet_yolof.config.packaged import load_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))  # the toy detector

CONFIG = "vfnet/vfnet_small_shapes.py"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of CONFIG with detections in every picture."""
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    torch.nn.init.zeros_(model.head.cls_logits.bias)
    path = tmp_path_factory.mktemp("weights") / "vfnet.pth"
    torch.save({"model": model.state_dict(), "class_names": list("abcdef")}, path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a=b.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def write_split() -> Callable[[Path, Path], None]:
    """Writes a COCO file and its one picture, 40 x 30 px."""

    def write(json_file: Path, images: Path) -> None:
        images.mkdir(parents=True, exist_ok=True)
        json_file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(images / "a.png")
        box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 10]}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "categories": [{"id": 3, "name": "cat"}],
            "annotations": [box],
        }
        json_file.write_text(json.dumps(content))

    return write
