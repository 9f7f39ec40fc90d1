"""Every way in for a file with weights, as the commands and classes take it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tiny import shrink
from torch import nn
from vfnet_yolof.config.packaged import load_config

CONFIG = "vfnet/vfnet_small_shapes.py"
ROW = "vfnet/vfnet_r50_fpn_1x"


def tiny_config(name: str = CONFIG) -> DictConfig:
    return shrink(load_config(name))


class Ways:
    """Each method loads one file as a user's command would; ``model`` is a VFNet of tiny_config."""

    names = (
        *("predict", "evaluate", "init_checkpoint", "init_from", "resume"),
        *("convert", "backbone", "average", "zoo", "verify"),
    )

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def load(self, name: str, path: Path) -> Any:
        return getattr(self, name)(path)

    def predict(self, path: Path) -> Any:
        from vfnet_yolof.inference.predictor import Predictor

        return Predictor(tiny_config(), path, device="cpu", optimized=False)

    def evaluate(self, path: Path) -> Any:
        from vfnet_yolof.engine.fine_tune import load_checkpoint_for_evaluation

        train = OmegaConf.create({"init_checkpoint": str(path), "output_dir": str(self.folder)})
        return load_checkpoint_for_evaluation(self.model, train)

    def init_checkpoint(self, path: Path) -> Any:
        from vfnet_yolof.engine.fine_tune import load_initial_weights

        return load_initial_weights(self.model, str(path))

    def init_from(self, path: Path) -> Any:
        from vfnet_yolof.engine.fine_tune import load_for_fine_tuning

        return load_for_fine_tuning(self.model, str(path))

    def resume(self, path: Path) -> Any:
        from vfnet_yolof.engine.checkpoints import CheckpointFiles

        return CheckpointFiles(path.parent).load(path)

    def convert(self, path: Path) -> Any:
        from vfnet_yolof.checkpoint import convert_checkpoint

        return convert_checkpoint(path, self.folder / "converted.pth", self.model)

    def backbone(self, path: Path) -> Any:
        from vfnet_yolof.checkpoint.backbones import convert_backbone

        return convert_backbone(path, self.folder / "converted.pth", self.model)

    def average(self, path: Path) -> Any:
        from vfnet_yolof.checkpoint.average import average_checkpoints

        return average_checkpoints([path, path])

    def zoo(self, path: Path) -> Any:
        from vfnet_yolof import model_zoo
        from vfnet_yolof.config import read

        read.load_config, before = lambda name, trust: tiny_config(name), read.load_config
        os.environ["VFNET_YOLOF_CACHE"] = str(self.folder / "cache")
        try:
            return model_zoo.get(ROW, weights=path)
        finally:
            read.load_config = before

    def verify(self, path: Path) -> Any:
        """Its conversion; what it does with the model then is the evaluation's."""
        from vfnet_yolof.model_zoo import converted_weights

        os.environ["VFNET_YOLOF_CACHE"] = str(self.folder / "cache")
        return converted_weights(ROW, self.model, path)
