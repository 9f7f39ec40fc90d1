"""``--batch auto``: how many images an iteration can have on this machine."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor

from ..config.parts import built
from .build import build_model, build_trainer
from .run import settle_seed, use_device

logger = logging.getLogger(f"detectron2.{__name__}")

_LOOKED_AT = 16  # training images, of which the largest stands for all
_SHARE = 0.9  # of a GPU's memory that may be used: later batches may be somewhat larger
_CPU_SHARE = 0.5  # of the machine's free memory
_OVER_SAVED = 3.0  # a step's peak over what its forward pass keeps: gradients, buffers, temporaries


def largest_batch(cfg: DictConfig) -> int:
    """Images per iteration, over all processes, that fit into memory; call it on each of them.

    Found by doubling, with the largest of some training images. On a GPU each size is tried; on a
    CPU one image is, and what its forward pass keeps tells how many fit into half of the free
    memory. It is never more than the recipe is for: more images would be fewer iterations of the
    same length.

    Args:
        cfg: the prepared config; not changed.

    Raises:
        ConfigError: a part of it cannot be built.
        MemoryError: not even one image fits.
    """
    cfg = copy.deepcopy(cfg)
    settle_seed(cfg)
    use_device(cfg)
    processes = comm.get_world_size()
    most = max(1, cfg.train.reference_batch_size // processes)
    cfg.dataloader.train.total_batch_size = processes
    if "num_workers" in cfg.dataloader.train:
        cfg.dataloader.train.num_workers = 0
    image = _largest_image(cfg)
    fits = _on_cpu(cfg, image, most) if cfg.train.device == "cpu" else _on_gpu(cfg, image, most)
    fits = min(comm.all_gather(fits))
    if fits < 1:
        raise MemoryError("not even one training image fits into memory; make the images smaller")
    height, width = image["image"].shape[1:]
    logger.info(
        "--batch auto: %d images of up to %d x %d px for each of %d processes (the recipe: %d)",
        *(fits, width, height, processes, cfg.train.reference_batch_size),
    )
    return fits * processes


def _largest_image(cfg: DictConfig) -> dict[str, Any]:
    """The largest of some images as training gets them."""
    loader = iter(built("dataloader.train", cfg.dataloader.train))
    seen = [next(loader)[0] for _ in range(_LOOKED_AT)]
    return max(seen, key=lambda entry: entry["image"][0].numel())


def _on_gpu(cfg: DictConfig, image: dict[str, Any], most: int) -> int:
    trainer = build_trainer(cfg, build_model(cfg))
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    fits, size = 0, 1
    while size <= most:
        torch.cuda.reset_peak_memory_stats()
        try:
            trainer.step.model.train()
            for _ in range(2):  # the optimizer makes its state in the first step
                loss = sum(trainer.step.model([image] * size).values())
                loss.backward()
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()
        except torch.cuda.OutOfMemoryError:
            break
        if torch.cuda.max_memory_reserved() > _SHARE * total:
            break
        fits, size = size, 2 * size
    del trainer
    torch.cuda.empty_cache()
    return fits


def _on_cpu(cfg: DictConfig, image: dict[str, Any], most: int) -> int:
    model = build_model(cfg).train()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model([image])
    del losses
    need = _OVER_SAVED * sum(kept.values())
    free = _CPU_SHARE * _free_memory() / comm.get_local_size()
    size = 1
    while 2 * size <= most and 2 * size * need <= free:
        size *= 2
    return size


def _free_memory() -> int:
    """Bytes that new processes can have without swapping; a large guess where nobody tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return 8 << 30
