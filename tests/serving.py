"""A tiny predictor for tests that use it from threads and processes.

Run as a program it forks and spawns, and prints as JSON what became of each child.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from omegaconf import DictConfig
from tiny import shrink, shrink_yolof
from vfnet_yolof import Predictor
from vfnet_yolof.config.packaged import load_config

CONFIGS = {
    "VFNet": ("vfnet/vfnet_small_shapes.py", shrink),
    "GFL": ("gfl/gfl_small_shapes.py", shrink),
    "YOLOF": ("yolof/yolof_small_shapes.py", shrink_yolof),
}
SIZES = ((64, 96), (128, 64), (50, 90), (200, 310), (33, 47))  # H, W
TIME_LIMIT = 60.0  # seconds for a child that takes one


def tiny_config(name: str) -> DictConfig:
    file, smaller = CONFIGS[name]
    config = smaller(load_config(file))
    config.model.postprocessor.score_thresh = 0.0
    config.model.postprocessor.max_detections = 20
    return config


def save_weights(config: DictConfig, path: Path, seed: int = 0) -> Path:
    """Random ones whose scores are spread out."""
    torch.manual_seed(seed)
    model = instantiate(config.model)
    for parameter in model.head.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"model": model.state_dict(), "class_names": ["ant", "bee", "cat"]}, path)
    return path


def tiny_predictor(name: str, folder: Path, **options: Any) -> Predictor:
    config = tiny_config(name)
    path = save_weights(config, folder / f"{name}.pth")
    return Predictor(config, path, device="cpu", score_thresh=0.0, **options)


def pictures() -> list[np.ndarray]:
    """(H, W, 3) uint8 noise of each of ``SIZES``."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def numbers(found: Instances) -> list[list[float]]:
    """Boxes, scores and classes, (P, 6)."""
    columns = [found.pred_boxes.tensor, found.scores[:, None], found.pred_classes[:, None]]
    return torch.cat(columns, dim=1).tolist()


def forked(action: Callable[[], Any]) -> str:
    """What becomes of ``action`` in a child that ``os.fork`` makes: "ok", an error or "hangs"."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
            answer = "ok"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    return _answer(child, read)


def _answer(child: int, read: int) -> str:
    end = time.monotonic() + TIME_LIMIT
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.01)
    with os.fdopen(read) as file:
        return file.read()


def in_a_thread(action: Callable[[], Any]) -> Callable[[], None]:
    """``action``, run by a thread of its own."""

    def run() -> None:
        thread = threading.Thread(target=action)
        thread.start()
        thread.join()

    return run


def with_one_thread(action: Callable[[], Any]) -> Callable[[], Any]:
    """``action`` after torch was told to compute with one thread."""
    return lambda: (torch.set_num_threads(1), action())


def predict(predictor: Predictor) -> list[Any]:
    """For a pool's worker."""
    return [numbers(found) for found in predictor(pictures())]


def pooled(method: str, predictor: Predictor) -> Any:
    """Results of a worker that ``multiprocessing`` starts so, its error, or "hangs"."""
    with multiprocessing.get_context(method).Pool(1) as pool:
        try:
            return pool.apply_async(predict, (predictor,)).get(2 * TIME_LIMIT)
        except multiprocessing.TimeoutError:
            return "hangs"
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def main(folder: Path) -> dict[str, Any]:
    """Each kind of child; torch computes with two threads."""
    first, second = pictures()[3], pictures()[0]

    def make() -> Predictor:
        return tiny_predictor("VFNet", folder)

    answers = {"made in the child": forked(lambda: make()(first))}
    made: list[Predictor] = []
    in_a_thread(lambda: made.append(make()))()
    predictor = made[0]
    answers["made in another thread"] = forked(lambda: predictor(first))
    predictor(second)
    answers |= {
        "used before": forked(lambda: predictor(first)),
        "another one in the child": forked(make),
        "with one thread in the child": forked(with_one_thread(lambda: predictor(first))),
        "in a thread of the child": forked(in_a_thread(lambda: predictor(first))),
        "pool fork": pooled("fork", predictor),
        "pool spawn": pooled("spawn", predictor),
        "here": predict(predictor),
    }
    return answers


if __name__ in ("__main__", "__mp_main__"):  # also in processes that spawn starts
    torch.set_num_threads(2)
if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
