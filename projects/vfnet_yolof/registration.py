"""What Detectron2 must know of this package, told when Detectron2 is imported and not before.

``import vfnet_yolof`` is to be quick, and works where neither PyTorch nor Detectron2 is installed.
Yet after nothing but that, Detectron2's registries have this project's detectors and backbones, and
its checkpointer reads ``.pkl`` files without running their code.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]


def _register_models() -> None:
    importlib.import_module(f"{_PACKAGE}.modeling")


def _guard_checkpointer() -> None:
    files = importlib.import_module(f"{_PACKAGE}.checkpoint.detectron2_files")
    files.guard_detection_checkpointer()


# What follows the import of these modules; doing it again does no harm.
_AFTERWARDS: dict[str, Callable[[], None]] = {
    "detectron2.modeling": _register_models,
    "detectron2.checkpoint": _guard_checkpointer,
}


class _Loader:
    """Another module loader, and what is to follow once it has executed the module."""

    def __init__(self, loader: Any, afterwards: Callable[[], None]) -> None:
        self._loader = loader
        self._afterwards = afterwards

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Nothing of this stays visible in the module.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._afterwards()


class _Finder(MetaPathFinder):
    """Lets the ordinary finders find the modules of :data:`_AFTERWARDS`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _AFTERWARDS:
            return None
        for finder in list(sys.meta_path):
            search = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = search(fullname, path, target) if search else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, _AFTERWARDS[fullname])  # type: ignore[assignment]
                return spec
        return None


def register() -> None:
    """Register with Detectron2 now where it is imported already, else as soon as it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if "DETECTRON2_ENV_MODULE" in os.environ:
        # Detectron2 imports that module while it is imported itself. Where it is
        # `detectron2_setup`, this must not happen in the middle of an import of this package's
        # modules. Whatever is wrong is said again by the next import of Detectron2.
        with contextlib.suppress(ImportError):
            importlib.import_module("detectron2")
    for name, afterwards in _AFTERWARDS.items():
        if name in sys.modules:
            importlib.import_module(name)  # waits where another thread is at it
            afterwards()
