"""The ``train`` section of a config: every option there is, with its default."""

from __future__ import annotations

import difflib
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

TRAIN_DEFAULTS: dict[str, Any] = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 90000,
    "device": "cuda",
    "seed": -1,  # negative, or None: one is drawn, logged and kept when resuming
    "amp": {"enabled": False, "dtype": "float16"},
    "ddp": {
        "broadcast_buffers": False,
        "find_unused_parameters": False,
        "fp16_compression": False,
    },
    "checkpointer": {"period": 5000, "max_to_keep": 3},
    "eval_period": 5000,
    "log_period": 20,
    # kind: "model" clips the norm over all gradients, "parameter" each one's, "value" each element
    "clip_grad": {"enabled": False, "max_norm": 35.0, "norm_type": 2.0, "kind": "model"},
    "best_checkpoint": {"metric": "bbox/AP", "mode": "max"},
    # warmup: the average follows faster in the beginning, by decay (1 + n) / (10 + n)
    "ema": {"enabled": False, "decay": 0.9998, "warmup": True},
    # start: share of max_iter; from there on the weights at the end of each of the cycles.
    # fresh_optimizer, from_best: drop the optimizer's momentum, load model_best.pth, at the start
    "swa": {
        "enabled": False,
        "start": 0.0,
        "cycles": 18,
        "fresh_optimizer": False,
        "from_best": False,
        "keep_parts": False,
        "bn_batches": 0,
    },
    "early_stopping": {"patience": 0},
    "val_loss": {"enabled": False},
    "accumulate": 1,
    "channels_last": False,
    "activation_checkpointing": False,
    "reference_batch_size": 16,
    # own data, as the command line named it: path with its split, or annotations and images
    "data": {
        "path": "",
        "split": 0.0,
        "train_json": "",
        "train_images": "",
        "val_json": "",
        "val_images": "",
    },
    "auto_scale": False,
    "cudnn_benchmark": False,
}
# What to set in place of options that there are no longer.
_REMOVED = {
    "train.optimize": "train.amp.enabled=True train.amp.dtype=bfloat16 train.channels_last=True "
    "take less time",
}
# Options that may be None as well.
NULLABLE: dict[str, type] = {"seed": int, "checkpointer.max_to_keep": int}
_CHOICES: dict[str, tuple[str, ...]] = {
    "amp.dtype": ("float16", "bfloat16"),
    "best_checkpoint.mode": ("max", "min"),
    "clip_grad.kind": ("model", "parameter", "value"),
}
_POSITIVE = (
    *("max_iter", "checkpointer.period", "log_period", "reference_batch_size"),
    *("swa.cycles", "accumulate", "clip_grad.max_norm", "clip_grad.norm_type"),
)


class ConfigError(ValueError):
    """A config or an override that cannot be right; the message names the key and what to do."""


def suggestion(key: str, known: list[str]) -> str:
    """`` Did you mean ...?`` with the nearest of the known dotted keys, or nothing.

    Of an option that was removed, what takes its place.
    """
    if key in _REMOVED:
        return f" It was removed; {_REMOVED[key]}."
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    if not near:  # right name in the wrong place, or only the last part misspelt
        by_leaf: dict[str, str] = {}
        for name in known:
            by_leaf.setdefault(name.rpartition(".")[2], name)
        leaves = difflib.get_close_matches(key.rpartition(".")[2], list(by_leaf), n=3, cutoff=0.6)
        near = [by_leaf[leaf] for leaf in leaves]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def complete_train_options(cfg: DictConfig) -> None:
    """Check ``cfg.train`` and fill in the defaults of what it does not mention.

    Raises:
        ConfigError: an option that does not exist (with the nearest that does), or a value of a
            wrong type or range.
    """
    if "train" not in cfg:
        raise ConfigError(
            "The config has no 'train' section; take one from configs/common/train.py."
        )
    try:
        content: Any = OmegaConf.to_container(cfg.train, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(
            f"{key if 'train' in key else 'train'} cannot be resolved: {str(error).splitlines()[0]}"
        ) from error
    if content.get("optimize") is False:  # in what older runs have saved
        del content["optimize"], cfg.train["optimize"]
    given = flatten(content)
    known = flatten(TRAIN_DEFAULTS)
    names = [f"train.{key}" for key in known]
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"Unknown option train.{key}.{suggestion(f'train.{key}', names)}")
        _check_value(key, value, known[key])
    cfg.train = OmegaConf.merge(TRAIN_DEFAULTS, cfg.train)


def _check_value(key: str, value: Any, default: Any) -> None:
    expected: Any = NULLABLE.get(key, type(default))
    if value is None:
        if key in NULLABLE:
            return
    elif expected is float and type(value) is int or type(value) is expected:
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ConfigError(f"train.{key}={value!r}: must be one of {', '.join(_CHOICES[key])}.")
        if key == "output_dir" and not value:
            raise ConfigError("train.output_dir is empty: name a folder.")
        if key in _POSITIVE and not value > 0:  # nor NaN
            raise ConfigError(f"train.{key}={value}: must be greater than 0.")
        return
    raise ConfigError(f"train.{key}={value!r}: {expected.__name__} expected.")


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested dictionaries by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
