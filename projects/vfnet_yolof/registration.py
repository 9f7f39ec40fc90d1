"""What Detectron2 must know of this package, told when Detectron2 is imported and not before.

``import vfnet_yolof`` is to be quick, and works where neither PyTorch nor Detectron2 is installed.
Yet after nothing but that, Detectron2's registries have this project's detectors and backbones, and
its checkpointer reads ``.pkl`` files without running their code.

What follows an import of Detectron2's modules imports nothing itself: a module of ours may be in
the middle of its own import then, in this thread or in another one, and two threads would wait for
each other. Ours are imported by the first question that only they can answer.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO

_PACKAGE = __name__.rpartition(".")[0]


def _complete_registries(modeling: ModuleType) -> None:
    for registry in (modeling.META_ARCH_REGISTRY, modeling.BACKBONE_REGISTRY):
        if not hasattr(registry, "register_ours"):
            registry.__class__ = _completed(type(registry))


def _completed(kind: Any) -> Any:
    """A subclass of Detectron2's registry that has this project's classes when it is asked."""

    class Registry(kind):
        @staticmethod
        def register_ours() -> None:
            importlib.import_module(f"{_PACKAGE}.modeling")

        def get(self, name: str) -> Any:
            if not super().__contains__(name):
                self.register_ours()
            return super().get(name)

        def __contains__(self, name: str) -> bool:
            if not super().__contains__(name):
                self.register_ours()
            return bool(super().__contains__(name))

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            self.register_ours()
            return iter(super().__iter__())

        def __repr__(self) -> str:
            self.register_ours()
            return str(super().__repr__())

        __str__ = __repr__

    return Registry


def _guard_checkpointer(checkpoint: ModuleType) -> None:
    """Let ``DetectionCheckpointer`` read ``.pkl`` files without running their code.

    It calls :func:`pickle.load`, in every release; ``DefaultTrainer`` and ``DefaultPredictor`` read
    ``MODEL.WEIGHTS`` with it. The name ``pickle`` in its module then stands for the module with
    another ``load``, and nothing else changes. The copy that the installer here repairs has an
    unpickler of its own, whose place is taken in the same way.
    """
    module: Any = sys.modules[f"{checkpoint.__name__}.detection_checkpoint"]
    module.pickle = SimpleNamespace(**{**vars(pickle), "load": _load_pkl})
    if hasattr(module, "_ArrayUnpickler"):
        module._ArrayUnpickler = _Unpickler


def _load_pkl(stream: BinaryIO, **_: Any) -> Any:
    """What the file holds; see :func:`vfnet_yolof.checkpoint.loading.load_pkl`."""
    from .checkpoint.loading import load_pkl

    return load_pkl(stream)


class _Unpickler:
    """:func:`_load_pkl` with the interface of :class:`pickle.Unpickler`."""

    def __init__(self, stream: BinaryIO, **_: Any) -> None:
        self._stream = stream

    def load(self) -> Any:
        return _load_pkl(self._stream)


# What follows the import of these modules; doing it again does no harm.
_AFTERWARDS: dict[str, Callable[[ModuleType], None]] = {
    "detectron2.modeling": _complete_registries,
    "detectron2.checkpoint": _guard_checkpointer,
}


class _Loader:
    """Another module loader, and what is to follow once it has executed the module."""

    def __init__(self, loader: Any, afterwards: Callable[[ModuleType], None]) -> None:
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
        self._afterwards(module)


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
                    loader: Any = _Loader(spec.loader, _AFTERWARDS[fullname])
                    spec.loader = loader
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
            # Another thread may be at it, for which this waits.
            afterwards(importlib.import_module(name))
