"""Modules that have moved, under their old names for one release.

A run's saved ``config.yaml`` names classes by the modules they were in, and so do scripts of users.
An old name is only looked up after all ways of finding a module have failed; what is imported by it
holds the very classes and functions of the new module.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = __name__.rpartition(".")[0]

MOVED = {
    "configs": "config.packaged",
    "demo": "inference.demo",
    "engine.optim": "solver",
    "engine.tta": "inference.tta",
    "engine.yacs_config": "config.yacs",
    "modeling.assigners.anchor_atss": "modeling.assigners.atss",
    "modeling.box_coders": "modeling.boxes",
    "modeling.heads.point_head": "modeling.heads.gfl_head",
    "modeling.losses.guided_focal": "modeling.losses.focal",
    "modeling.losses.iou": "modeling.boxes",
    "modeling.losses.quality_focal": "modeling.losses.focal",
    "modeling.losses.varifocal": "modeling.losses.focal",
    "modeling.meta_arch.atss": "modeling.meta_arch.gfl",
    "modeling.meta_arch.yolof": "modeling.meta_arch.anchor_detector",
    "modeling.quality": "modeling.meta_arch.gfl",
    "predictor": "inference.predictor",
    "visualization": "drawing.visualization",
    "yacs": "modeling.yacs",
    "yaml_files": "config.yaml_files",
}


class _OldNames(MetaPathFinder, Loader):
    """Finds the modules of :data:`MOVED`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == _PACKAGE and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = f"{_PACKAGE}.{MOVED[old.partition('.')[2]]}"
        warnings.warn(f"{old} is now {new}", FutureWarning, stacklevel=2)
        kept = {"__name__", "__spec__", "__loader__", "__package__"}
        content = vars(importlib.import_module(new))
        module.__dict__.update({k: v for k, v in content.items() if k not in kept})


def find_moved_modules() -> None:
    """Let Python find the modules of :data:`MOVED` under their old names."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
