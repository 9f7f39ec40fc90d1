"""A tiny trained detector with test images of its own, for the studies and figures."""

import json
from pathlib import Path
from typing import Any

from detecting import CLASS_NAMES, write_detector, write_images
from tiny import shrink, shrink_yolof
from vfnet_yolof.config.packaged import load_config

# Image, class, x, y, width, height; image 2 has no box. Images are 64 to 100 px on their sides.
BOXES = (
    (0, 0, 4.0, 4.0, 36.0, 32.0),
    (0, 1, 30.0, 20.0, 30.0, 36.0),
    (1, 2, 10.0, 8.0, 50.0, 40.0),
    (3, 0, 8.0, 8.0, 44.0, 30.0),
    (3, 2, 20.0, 30.0, 40.0, 30.0),
)
SIZES = ((64, 64), (64, 80), (64, 64), (70, 64))  # height, width
CONFIGS = {
    "atss": "ablations/vfnet_t3_fcos_atss.py",
    "vfnet": "vfnet/vfnet_small_shapes.py",
    "gfl": "gfl/gfl_small_shapes.py",
    "yolof": "yolof/yolof_small_shapes.py",
}


def write_studied(folder: Path, name: str) -> list[str]:
    """Write a detector of random weights and its data; the arguments that name both.

    The categories stand in another order in the file than the detector has its classes.
    """
    config = load_config(CONFIGS[name])
    config.dataloader.test.num_workers = 0
    folder.mkdir(parents=True, exist_ok=True)
    write_detector(folder, (shrink_yolof if name == "yolof" else shrink)(config))
    return [str(folder / "tiny.pth"), *write_data(folder), "--device", "cpu"]


def write_data(folder: Path, boxes: Any = BOXES) -> list[str]:
    """Write images and annotations; the arguments that name them."""
    write_images(folder / "images", SIZES)
    ids = {name: 10 * (i + 1) for i, name in enumerate(reversed(CLASS_NAMES))}
    content = {
        "images": [
            {"id": 7 + i, "file_name": f"{i}.png", "height": height, "width": width}
            for i, (height, width) in enumerate(SIZES)
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 7 + image,
                "category_id": ids[CLASS_NAMES[k]],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, (image, k, *box) in enumerate(boxes)
        ],
    }
    (folder / "val.json").write_text(json.dumps(content))
    return ["--val-json", str(folder / "val.json"), "--val-images", str(folder / "images")]
