"""Yacs configs (``.yaml``) as the component dictionary that the engine runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig
from torch import nn

from ..solver import get_optimizer_params
from .options import ConfigError, suggestion
from .yaml_files import Trust, with_bases

# Keys of yacs, and what they become in the LazyConfig.
COUNTERPARTS = {
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


def load_yacs(path: str, overrides: Sequence[str] = (), trust: Trust | None = None) -> CfgNode:
    """Read a ``.yaml`` file, and those it inherits from, and apply ``KEY=value`` overrides.

    ``trust``: with ``everything`` the files' tags may run code, as Detectron2 lets them.

    Raises:
        ConfigError: a file that cannot be read as data, an unknown key (names the nearest ones) or
            a value of a wrong type.
        FileNotFoundError: there is no such file, or none that ``_BASE_`` names.
    """
    from vfnet_yolof.modeling.yacs import get_cfg_with_keys

    cfg = get_cfg_with_keys()
    known = list(yacs_keys(cfg))
    try:
        for file, content in with_bases(path, trust):
            _check_kinds(file, content, cfg)
        cfg.merge_from_file(path, allow_unsafe=trust is not None and trust.everything)
    except KeyError as error:
        key = str(error.args[0]).rpartition(": ")[2]
        raise ConfigError(f"{path}: unknown key {key}.{suggestion(key, known)}") from error
    except (ValueError, AssertionError, TypeError, AttributeError) as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise ConfigError(named) from error
    apply_yacs_overrides(cfg, overrides)
    return cfg


def _check_kinds(file: Path, content: Mapping[str, Any], cfg: CfgNode, prefix: str = "") -> None:
    """Mappings where ``cfg`` has some, and a number as VERSION: yacs does not name these keys."""
    version = content.get("VERSION", 0) if not prefix else 0
    if type(version) is not int:
        raise ConfigError(f"{file}: VERSION must be a whole number such as 2, got {version!r}")
    for key, value in content.items():
        node = cfg.get(key)
        if isinstance(node, CfgNode):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{file}: {prefix}{key} must be a mapping of keys to values, got {value!r}"
                )
            _check_kinds(file, value, node, f"{prefix}{key}.")


def apply_yacs_overrides(cfg: CfgNode, overrides: Sequence[str]) -> None:
    """Apply ``KEY=value`` overrides in place; errors as of :func:`load_yacs`."""
    known = list(yacs_keys(cfg))
    for text in overrides:
        key, _, value = text.partition("=")
        if key not in known:
            raise ConfigError(f"Unknown key {key}.{suggestion(key, known)}")
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError) as error:
            raise ConfigError(f"{key}={value}: {error}") from error


def yacs_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    """Dotted keys of all values."""
    keys = []
    for name, value in cfg.items():
        nested = isinstance(value, CfgNode)
        keys += yacs_keys(value, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def yacs_from_text(yaml: str, *, own_keys: bool = False) -> CfgNode:
    """A whole config from the text that ``CfgNode.dump`` gave.

    ``own_keys``: it may have keys that neither Detectron2 nor this project knows.
    """
    from vfnet_yolof.modeling.yacs import get_cfg_with_keys

    cfg = get_cfg_with_keys()
    cfg.set_new_allowed(own_keys)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(yaml))
    return cfg


def build_yacs_model(
    yaml: str, num_classes: int | None = None, own_keys: bool = False
) -> nn.Module:
    """The model of a whole yacs config, given as text; on the CPU.

    ``train.device``, which MODEL.DEVICE has become, may have fallen back to the CPU since.

    Args:
        yaml, own_keys: see :func:`yacs_from_text`.
        num_classes: takes the place of the config's, unless it is None.
    """
    cfg = yacs_from_text(yaml, own_keys=own_keys)
    if num_classes is not None:
        cfg.merge_from_list([num_classes_key(cfg), num_classes])
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


def num_classes_key(cfg: CfgNode) -> str:
    """Where a meta-architecture's config has its number of classes.

    Raises:
        ConfigError: it is not known.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    key = f"MODEL.{name.upper()}.NUM_CLASSES"
    if key not in yacs_keys(cfg):
        raise ConfigError(f"MODEL.META_ARCHITECTURE={name}: the config has no {key}.")
    return key


def components(cfg: CfgNode) -> DictConfig:
    """Model, optimizer, schedule, loaders, evaluator and ``train`` options of a yacs config."""
    arch_key = num_classes_key(cfg)
    num_classes = cfg.MODEL[arch_key.split(".")[1]].NUM_CLASSES
    solver = cfg.SOLVER
    backbone = solver.BACKBONE_MULTIPLIER
    content = {
        "train": _train_options(cfg),
        "optimizer": L(torch.optim.SGD)(
            params=L(get_optimizer_params)(
                base_lr="${..lr}",
                weight_decay="${..weight_decay}",
                bias_lr_factor=solver.BIAS_LR_FACTOR,
                weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
                weight_decay_norm=solver.WEIGHT_DECAY_NORM,
                lr_factors={} if backbone == 1.0 else {"backbone.bottom_up": backbone},
            ),
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            weight_decay=solver.WEIGHT_DECAY,
            nesterov=solver.NESTEROV,
        ),
        "lr_multiplier": _schedule(cfg),
        "dataloader": _loaders(cfg),
        # as text, because OmegaConf would make its own kind of node of a CfgNode
        "model": L(build_yacs_model)(yaml=cfg.dump(), num_classes=num_classes),
    }
    return DictConfig(content, flags={"allow_objects": True})


def _train_options(cfg: CfgNode) -> dict[str, Any]:
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    kinds = {"value": "value", "norm": "parameter", "full_model": "model"}
    if clip.CLIP_TYPE not in kinds:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE={clip.CLIP_TYPE}: one of {', '.join(kinds)}."
        )
    return {
        "output_dir": cfg.OUTPUT_DIR,
        "init_checkpoint": cfg.MODEL.WEIGHTS,
        "max_iter": solver.MAX_ITER,
        "device": cfg.MODEL.DEVICE,
        "seed": cfg.SEED,
        "amp": {"enabled": solver.AMP.ENABLED},
        "checkpointer": {"period": solver.CHECKPOINT_PERIOD, "max_to_keep": None},
        "eval_period": cfg.TEST.EVAL_PERIOD,
        "clip_grad": {
            "enabled": clip.ENABLED,
            "max_norm": float(clip.CLIP_VALUE),
            "norm_type": float(clip.NORM_TYPE),
            "kind": kinds[clip.CLIP_TYPE],
        },
        "reference_batch_size": solver.REFERENCE_BATCH_SIZE,
        "cudnn_benchmark": cfg.CUDNN_BENCHMARK,
    }


def _schedule(cfg: CfgNode) -> DictConfig:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = [x for x in solver.STEPS if x <= solver.MAX_ITER]
        scheduler = L(MultiStepParamScheduler)(
            values=[solver.GAMMA**k for k in range(len(steps) + 1)],
            milestones=steps,
            num_updates=solver.MAX_ITER,
        )
    elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
    else:
        raise ConfigError(
            f"SOLVER.LR_SCHEDULER_NAME={solver.LR_SCHEDULER_NAME}: "
            "WarmupMultiStepLR or WarmupCosineLR."
        )
    return L(WarmupParamScheduler)(
        scheduler=scheduler,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_length=min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        warmup_method=solver.WARMUP_METHOD,
    )


def test_components(cfg: CfgNode, source: str) -> DictConfig:
    """What inference needs of a yacs config: model, test loader, channel order, weights.

    The config may be one for Detectron2's own models and lack this project's keys.

    Args:
        cfg: a whole config.
        source: where it comes from, for messages.

    Raises:
        ConfigError: there is no such meta-architecture.
    """
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        raise ConfigError(
            f"{source}: MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r} is not known"
        )
    from vfnet_yolof.modeling.yacs import get_cfg_with_keys

    own_keys = not set(yacs_keys(cfg)) <= set(yacs_keys(get_cfg_with_keys()))
    mapper = dict(
        image_format=cfg.INPUT.FORMAT, interpolation=cfg.INPUT.get("INTERPOLATION", "pil")
    )
    content = {
        "train": {"init_checkpoint": cfg.MODEL.WEIGHTS},
        "dataloader": {"train": {"mapper": mapper}, "test": _test_loader(cfg)},
        "model": L(build_yacs_model)(yaml=cfg.dump(), own_keys=own_keys),
    }
    return DictConfig(content, flags={"allow_objects": True})


def _test_loader(cfg: CfgNode) -> DictConfig:
    from vfnet_yolof.data import DetectionMapper, build_test_loader, get_dataset_dicts

    return L(build_test_loader)(
        dataset=L(get_dataset_dicts)(names=next(iter(cfg.DATASETS.TEST), ""), filter_empty=False),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=_resize(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice"),
            image_format="${...train.mapper.image_format}",
            interpolation="${...train.mapper.interpolation}",
        ),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _loaders(cfg: CfgNode) -> dict[str, Any]:
    from vfnet_yolof.data import DetectionMapper, build_train_loader, get_dataset_dicts
    from vfnet_yolof.evaluation import CocoEvaluator

    inputs, workers = cfg.INPUT, cfg.DATALOADER.NUM_WORKERS
    if len(cfg.DATASETS.TEST) > 1:
        raise ConfigError(f"DATASETS.TEST={cfg.DATASETS.TEST}: one data set can be evaluated.")
    loaders = {
        "train": L(build_train_loader)(
            dataset=L(get_dataset_dicts)(
                names=list(cfg.DATASETS.TRAIN),
                filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            ),
            mapper=L(DetectionMapper)(
                is_train=True,
                augmentations=_augmentations(cfg),
                image_format=inputs.FORMAT,
                interpolation=inputs.INTERPOLATION,
            ),
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            num_workers=workers,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        )
    }
    if cfg.DATASETS.TEST:
        loaders["test"] = _test_loader(cfg)
        loaders["evaluator"] = L(CocoEvaluator)(
            dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
        )
    return loaders


def _resize(short: Any, longest: int, style: str) -> list[Any]:
    """Shortest edge to one of the sizes; a size of 0 leaves images alone, as in Detectron2."""
    sizes = [short] if isinstance(short, int) else list(short)
    if sizes[0] == 0:
        return []
    return [L(T.ResizeShortestEdge)(short_edge_length=sizes, max_size=longest, sample_style=style)]


def _augmentations(cfg: CfgNode) -> list[Any]:
    from vfnet_yolof.data import RandomShift

    inputs = cfg.INPUT
    if inputs.CROP.ENABLED:
        raise ConfigError("INPUT.CROP.ENABLED: not supported here; use a LazyConfig (.py).")
    augmentations = _resize(
        inputs.MIN_SIZE_TRAIN, inputs.MAX_SIZE_TRAIN, inputs.MIN_SIZE_TRAIN_SAMPLING
    )
    if inputs.RANDOM_FLIP != "none":
        augmentations.append(
            L(T.RandomFlip)(
                horizontal=inputs.RANDOM_FLIP == "horizontal",
                vertical=inputs.RANDOM_FLIP == "vertical",
            )
        )
    if inputs.RANDOM_SHIFT.MAX_SHIFT:
        augmentations.append(
            L(RandomShift)(max_shift=inputs.RANDOM_SHIFT.MAX_SHIFT, prob=inputs.RANDOM_SHIFT.PROB)
        )
    return augmentations
