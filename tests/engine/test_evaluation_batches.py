"""``--eval-only`` writes the same detections whatever the batch size and the order of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.config.packaged import load_config

SIZES = [(40, 90), (90, 40), (64, 64), (30, 31), (64, 64)]  # (H, W)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of noise and weights that find boxes in them."""
    folder = tmp_path_factory.mktemp("batches")
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        noise = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    cfg = load_config("vfnet/vfnet_small.py")
    cfg.model.num_classes = 1
    torch.manual_seed(0)
    torch.save({"model": instantiate(cfg.model).state_dict()}, folder / "model.pth")
    return folder


def detections(folder: Path, name: str, batch_size: int, order: list[int]) -> dict[int, np.ndarray]:
    """(P, 5) x, y, width, height and score of what is found in each image, best first."""
    images = [
        {"id": i, "file_name": f"{i}.png", "height": SIZES[i][0], "width": SIZES[i][1]}
        for i in order
    ]
    boxes = [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [2, 2, 20, 20]} for i in order]
    annotations = folder / f"{name}.json"
    content = {"images": images, "categories": [{"id": 1, "name": "patch"}], "annotations": boxes}
    annotations.write_text(json.dumps(content))
    run = [
        *("--config-file", "vfnet/vfnet_small.py", "--num-gpus", "0", "--eval-only"),
        *("--val-json", str(annotations), "--val-images", str(folder)),
        f"train.output_dir={folder / name}",
        f"train.init_checkpoint={folder / 'model.pth'}",
        "dataloader.test.mapper.augmentations=[]",
        "dataloader.test.num_workers=0",
        f"dataloader.test.batch_size={batch_size}",
        "model.postprocessor.score_thresh=0.0",
        "model.postprocessor.nms.iou_threshold=1.0",
    ]
    assert command_line(run) == 0
    found: dict[int, list[list[float]]] = {i: [] for i in order}
    stored = folder / name / "inference" / "coco_instances_results.json"
    for one in json.loads(stored.read_text()):
        found[one["image_id"]].append([*one["bbox"], one["score"]])
    return {i: np.array(rows) for i, rows in found.items()}


def test_batch_size_and_order(folder: Path) -> None:
    alone = detections(folder, "alone", 1, [0, 1, 2, 3, 4])
    for name, batch_size, order in (("five", 5, [0, 1, 2, 3, 4]), ("two", 2, [3, 4, 0, 2, 1])):
        got = detections(folder, name, batch_size, order)
        for i, rows in alone.items():
            assert len(rows) == len(got[i]) > 10
            # the nearest, not the one at the same place: rounding may exchange equal scores
            apart = np.abs(rows[:, None] - got[i][None]).max(axis=-1)
            assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-3, (name, i)
