"""Images and videos to detect in, and weights that find something in each of them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import instantiate
from PIL import Image
from vfnet_yolof.config.packaged import load_config

CONFIG = "vfnet/vfnet_small_shapes.py"
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]


def save_weights(path: Path) -> Path:
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    torch.nn.init.zeros_(model.head.cls_logits.bias)
    torch.save({"model": model.state_dict(), "class_names": NAMES}, path)
    return path


def write_picture(path: Path, height: int = 64, width: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def write_video(path: Path, frames: int, fps: float = 12.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (96, 64))
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return path


def read_video(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Number of frames, frames per second, (width, height)."""
    capture = cv2.VideoCapture(str(path))
    fps, count, size = capture.get(cv2.CAP_PROP_FPS), 0, (0, 0)
    while True:
        success, frame = capture.read()
        if not success:
            return count, fps, size
        count, size = count + 1, (frame.shape[1], frame.shape[0])
