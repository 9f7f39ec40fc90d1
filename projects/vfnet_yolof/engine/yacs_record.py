"""The config of a run that came from yacs, as a plain yacs file again, for other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..config.options import complete_train_options, flatten
from ..config.yacs import build_yacs_model, components, num_classes_key, yacs_from_text
from ..utils.files import write_atomically
from .checkpoints import FINAL

FILE_NAME = "config_yacs.yaml"

# What flags and lower-case overrides may have changed, and the yacs key that it came from.
_COUNTERPARTS = {
    "OUTPUT_DIR": "train.output_dir",
    "MODEL.DEVICE": "train.device",
    "SEED": "train.seed",
    "CUDNN_BENCHMARK": "train.cudnn_benchmark",
    "DATASETS.TRAIN": "dataloader.train.dataset.names",
    "DATASETS.TEST": "dataloader.test.dataset.names",
    "DATALOADER.NUM_WORKERS": "dataloader.train.num_workers",
    "DATALOADER.ASPECT_RATIO_GROUPING": "dataloader.train.aspect_ratio_grouping",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "dataloader.train.dataset.filter_empty",
    "INPUT.FORMAT": "dataloader.train.mapper.image_format",
    "INPUT.INTERPOLATION": "dataloader.train.mapper.interpolation",
    "SOLVER.IMS_PER_BATCH": "dataloader.train.total_batch_size",
    "SOLVER.REFERENCE_BATCH_SIZE": "train.reference_batch_size",
    "SOLVER.MAX_ITER": "train.max_iter",
    "SOLVER.CHECKPOINT_PERIOD": "train.checkpointer.period",
    "SOLVER.AMP.ENABLED": "train.amp.enabled",
    "SOLVER.CLIP_GRADIENTS.ENABLED": "train.clip_grad.enabled",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "train.clip_grad.max_norm",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": "train.clip_grad.norm_type",
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.WEIGHT_DECAY": "optimizer.weight_decay",
    "SOLVER.NESTEROV": "optimizer.nesterov",
    "SOLVER.WARMUP_FACTOR": "lr_multiplier.warmup_factor",
    "TEST.EVAL_PERIOD": "train.eval_period",
}
# What has got into the file in another form.
_TRANSLATED = (
    *("model.yaml", "train.init_checkpoint"),
    *("lr_multiplier.warmup_length", "lr_multiplier.scheduler.milestones"),
    "lr_multiplier.scheduler.num_updates",
)
_HEAD = """\
# This run as a yacs config for DefaultPredictor and other tools that use Detectron2's keys; to
# train again, take config.yaml. MODEL.WEIGHTS is what the run leaves at its end.
"""
_LEFT_OUT = "# Settings of the run that such a file has no place for:\n"


def write_yacs_record(cfg: DictConfig) -> None:
    """Write ``config_yacs.yaml`` into the output folder; remove an old one if there is none.

    Only configs that :func:`components` made from a yacs file have such a form, and those that
    were saved of them.
    """
    path = Path(cfg.train.output_dir) / FILE_NAME
    if _comparable(cfg.model).get("_target_") is not build_yacs_model:
        path.unlink(missing_ok=True)
        return
    text = yacs_record(cfg).encode()
    write_atomically(path, lambda file: file.write(text))


def yacs_record(cfg: DictConfig) -> str:
    """Text of a yacs file with the settings of ``cfg``, which :func:`components` made.

    Settings that yacs has no key for are listed in comments at its top.
    """
    yacs = yacs_from_text(cfg.model.yaml)
    values = {key: OmegaConf.select(cfg, name) for key, name in _COUNTERPARTS.items()}
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        names = values[key] or ()
        values[key] = (names,) if isinstance(names, str) else tuple(names)
    # The second key is where tools look that know Detectron2's own detectors only.
    for key in (num_classes_key(yacs), "MODEL.ROI_HEADS.NUM_CLASSES"):
        values[key] = cfg.model.num_classes
    values["MODEL.WEIGHTS"] = os.path.abspath(f"{cfg.train.output_dir}/{FINAL}.pth")
    values |= _schedule_keys(cfg)
    for key, value in values.items():
        if value is not None:
            yacs.merge_from_list([key, value])
    lines = "".join(f"#   {line}\n" for line in _left_out(cfg, yacs))
    return _HEAD + (_LEFT_OUT + lines if lines else "") + yacs.dump()


def _schedule_keys(cfg: DictConfig) -> dict[str, Any]:
    """Shares of the run as numbers of iterations."""
    schedule, length = cfg.lr_multiplier, cfg.train.max_iter
    keys: dict[str, Any] = {"SOLVER.WARMUP_ITERS": round(schedule.warmup_length * length)}
    if "milestones" in schedule.scheduler:
        share = length / schedule.scheduler.num_updates
        keys["SOLVER.STEPS"] = tuple(round(x * share) for x in schedule.scheduler.milestones)
    return keys


def _left_out(cfg: DictConfig, yacs: CfgNode) -> list[str]:
    """``key: value`` of each setting that is another one in what ``yacs`` stands for."""
    from_yacs = components(yacs)
    complete_train_options(from_yacs)
    before, after = flatten(_comparable(from_yacs)), flatten(_comparable(cfg))
    return [
        f"{key}: {after.get(key, 'removed')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and key not in _TRANSLATED
    ]


def _comparable(node: Any) -> Any:
    """Plain containers, with references resolved; a saved config names what another one holds."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        node = {key: _comparable(value) for key, value in node.items()}
        if isinstance(node.get("_target_"), str):
            node["_target_"] = locate(node["_target_"])
        return node
    return [_comparable(x) for x in node] if isinstance(node, list | tuple) else node
