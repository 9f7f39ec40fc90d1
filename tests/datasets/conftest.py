"""Small pictures and annotation files to load from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data in other formats are converted to."""
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """Ten data set dicts with pictures of their own: 0-5 wide, 6-9 tall; record 3 has no box."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(10):
        width, height = (48, 32) if i < 6 else (32, 48)
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        box = {"bbox": [2.0 + i, 4.0, 10.0, 8.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": i}
        made.append(
            {
                "file_name": str(path),
                "image_id": 100 + i,
                "width": width,
                "height": height,
                "annotations": [] if i == 3 else [box],
            }
        )
    return made


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Writes a COCO file with two pictures, 40 x 30 px; keyword arguments replace its parts."""

    def write(name: str = "data", **parts: Any) -> tuple[str, str]:
        root = tmp_path / "images"
        root.mkdir(exist_ok=True)
        for file_name in ("a.png", "b.png"):
            if not (root / file_name).exists():
                Image.new("RGB", (40, 30)).save(root / file_name)
        content = {
            "images": [
                {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 10]},
                {"id": 2, "image_id": 2, "category_id": 7, "bbox": [5, 5, 20, 20]},
            ],
        }
        content |= parts
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return str(path), str(root)

    return write
