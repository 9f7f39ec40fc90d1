"""What makes two configs differ."""

import pydoc
from typing import Any

from omegaconf import DictConfig, OmegaConf
from vfnet_yolof.config.packaged import load_config

ABSENT = "absent"


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of a config, without resolving it; targets as the objects they name."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    else:
        is_name = prefix.endswith("_target_.") and isinstance(node, str)
        return {prefix[:-1]: pydoc.locate(node) if is_name else node}
    return {k: v for key, x in items for k, v in flat(x, f"{prefix}{key}.").items()}


def changes(base: str, other: str) -> dict[str, Any]:
    """{dotted key: value in ``other``} where two packaged configs differ, output folders apart."""
    old, new = flat(load_config(base)), flat(load_config(other))
    keys = {k for k in old | new if old.get(k, ABSENT) != new.get(k, ABSENT)}
    return {k: new.get(k, ABSENT) for k in keys - {"train.output_dir"}}
