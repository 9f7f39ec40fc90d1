"""Which installed program runs a detector: this project's own layers, onnxruntime or OpenVINO.

What is fastest follows from a stated rule (:data:`RULES`) or from a measurement on this machine
that was asked for and kept. The files that the others need are those of `vfnet-yolof export`: one
of this very detector that lies beside its checkpoint, or one that is exported, checked and kept in
the cache. All are in float32: fewer bits are taken only where such a file is named as the model.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..checkpoint.convert import file_sha256
from ..config.inference import InferenceConfig
from ..config.options import ConfigError
from ..export.write import FORMATS, ExportOptions, export_detector, identity, resize_rule
from ..layers.nms import HardNMS
from ..optimization import optimize
from ..optimization.winograd import WinogradConv2d
from ..runtime import ExportedFileError, Metadata, processor
from ..runtime.detector import open_graph
from ..runtime.metadata import resized
from ..utils.files import cache_dir, write_atomically
from .exported import ExportedModel

logger = logging.getLogger(__name__)

FORMAT_OF = {"onnxruntime": "onnx", "openvino": "openvino"}  # of :data:`.FORMATS`
RUNTIMES = ("native", *FORMAT_OF)
ROUNDS = 5  # of a measurement, after one to warm up
USUAL_IMAGE = (480, 640)  # px, before it is resized for the detector
_X86 = ("x86_64", "AMD64")
_MEASURED = "measured.json"


class Traits(NamedTuple):
    """What the rule asks of a detector and of a processor.

    Attributes:
        machine: kind of processor, as ``platform.machine()`` says. channels: most of the head's.
        stride: px between neighbours of the finest map that the head reads.
        winograd: the head's convolutions that :class:`.WinogradConv2d` computes when optimized.
    """

    machine: str
    channels: int
    stride: int
    winograd: int

    @classmethod
    def of(cls, model: Any) -> Traits:
        """Those of a detector on this processor."""
        convs = [x for x in model.head.modules() if isinstance(x, nn.Conv2d)]
        return cls(
            platform.machine(),
            max((x.in_channels for x in convs), default=0),
            int(model.backbone.output_shape()[model.head_in_features[0]].stride),
            sum(WinogradConv2d.suits(x) for x in convs),
        )


class Rule(NamedTuple):
    """One line of the rule: where it applies, runtimes from the fastest on, and why."""

    applies: Callable[[Traits], bool]
    order: tuple[str, ...]
    why: str


# The first that applies. From measurements on an x86-64 processor with AVX-512: docs/export.md.
RULES = (
    Rule(
        lambda x: x.machine not in _X86,
        ("native",),
        "nothing was measured on this kind of processor",
    ),
    Rule(
        lambda x: x.winograd > 0 and x.stride <= 16,
        ("native",),
        "Winograd's algorithm serves the convolutions of its head, on large maps",
    ),
    Rule(
        lambda x: x.channels <= 128,
        ("onnxruntime", "openvino", "native"),
        "its head has few channels",
    ),
    Rule(
        lambda x: True,
        ("openvino", "onnxruntime", "native"),
        "Winograd's algorithm does not serve the convolutions of its head",
    ),
)


def fastest(traits: Traits, installed: Iterable[str]) -> tuple[list[str], str]:
    """The installed runtimes, from the fastest on, by :data:`RULES`, and why; native is last."""
    rule = next(x for x in RULES if x.applies(traits))
    there = {*installed, "native"}
    return [x for x in rule.order if x in there], rule.why


def installed_runtimes() -> list[str]:
    """Of :data:`RUNTIMES`, native among them."""
    return [x for x in RUNTIMES if x == "native" or importlib.util.find_spec(x) is not None]


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        runtime: one of :data:`RUNTIMES`, or "auto". measure: with "auto", measure on this machine
            unless that was done before.

    Raises:
        ConfigError: another name, or ``measure`` without "auto".
    """

    runtime: str = "native"
    measure: bool = False

    def __post_init__(self) -> None:
        if self.runtime not in ("auto", *RUNTIMES):
            names = ", ".join(("auto", *RUNTIMES))
            raise ConfigError(f"runtime {self.runtime!r} is not known: one of {names}")
        if self.measure and self.runtime != "auto":
            raise ConfigError("--measure-runtimes is for --runtime auto.")


class Choice(NamedTuple):
    """What runs the detector.

    Attributes:
        runtime: of :data:`RUNTIMES`. why: it was taken. model: what runs the file, or None where
            the detector itself runs.
    """

    runtime: str
    why: str
    model: ExportedModel | None = None

    def __str__(self) -> str:
        file = f", {self.model.detector.path}" if self.model else ""
        return f"{self.runtime}{file}: {self.why}"


def choose(
    request: Request,
    model: nn.Module,
    config: InferenceConfig,
    class_names: Sequence[str],
    category_ids: Sequence[int] | None,
    beside: Path,
) -> Choice:
    """What runs a detector; arguments as of :class:`Chooser`, errors as of calling it."""
    if request.runtime == "native":  # without a look at the weights
        return Choice("native", "asked for")
    choice = Chooser(model, config, class_names, category_ids, beside)(request)
    logger.info("runtime: %s", choice)
    return choice


class Chooser:
    """Chooses what runs one detector.

    Args:
        model: with its weights, on the CPU, not optimized, its score threshold settled.
        config: it was built from. class_names, category_ids: for a file that is exported.
        beside: folder of its checkpoint, where exported files may lie, if there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        config: InferenceConfig,
        class_names: Sequence[str],
        category_ids: Sequence[int] | None,
        beside: Path,
    ) -> None:
        self.model, self.config = model, config
        self.class_names, self.category_ids = class_names, category_ids
        self.beside = beside
        self.threads = torch.get_num_threads()
        self.identity = identity(model, config)
        self.folder = cache_dir() / "exported" / self.identity[:32]

    def __call__(self, request: Request) -> Choice:
        """What is asked for, or the fastest.

        Where the fastest by the rule cannot be had, the next is taken, and a warning says why.

        Raises:
            ConfigError: a runtime was named that cannot run this detector.
            CheckFailed, ModuleNotFoundError: its file cannot be exported.
        """
        if reason := _obstacle(self.model, self.config):
            if request.runtime != "auto":
                raise ConfigError(f"{self.config.name} cannot run in {request.runtime}: {reason}.")
            return Choice("native", reason)
        if request.runtime != "auto":
            if request.runtime not in installed_runtimes():
                raise ModuleNotFoundError(
                    f"{request.runtime} is not installed: pip install {request.runtime}",
                    name=request.runtime,
                )
            return Choice(request.runtime, "asked for", self.opened(request.runtime))
        if seconds := self.measured() or (self.measure() if request.measure else None):
            order = sorted(seconds, key=lambda x: statistics.median(seconds[x]))
            why = "measured on this machine, " + _milliseconds(seconds)
        else:
            order, why = fastest(Traits.of(self.model), installed_runtimes())
        for runtime in order:
            if runtime == "native":
                break
            if model := self._opened_or_told(runtime):
                return Choice(runtime, why, model)
            why = "what would be faster cannot be had"
        return Choice("native", why)

    def found(self, runtime: str) -> Path | None:
        """An exported file of this very detector in float32, which takes images of all sizes."""
        suffix = FORMATS[FORMAT_OF[runtime]]
        folders = (self.beside, self.folder)
        for path in (x for folder in folders for x in sorted(folder.glob(f"*{suffix}"))):
            try:
                if self._may_fit(path) and self.fits(open_graph(path, 1)[1]):
                    return path
            except ExportedFileError:  # of another program, or of a later release
                continue
        return None

    def _may_fit(self, path: Path) -> bool:
        """False where the JSON file beside it speaks of another detector; opening takes longer."""
        try:
            content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return True
        return not isinstance(content, dict) or content.get("identity") == self.identity

    def fits(self, metadata: Metadata) -> bool:
        """Whether a file gives what this detector gives."""
        return (
            metadata.identity == self.identity
            and metadata.precision == "fp32"
            and metadata.nms == "inside"
            and metadata.static_size is None
        )

    def opened(self, runtime: str) -> ExportedModel:
        """What runs a file that is there, or else is exported now; raises as a call."""
        path = self.found(runtime)
        if path is None:
            path = self._export(runtime)
        return ExportedModel(path, threads=self.threads)

    def _opened_or_told(self, runtime: str) -> ExportedModel | None:
        try:
            return self.opened(runtime)
        except Exception as error:  # exporters and runtimes have their own types
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, ModuleNotFoundError):
                reason = f"exporting for it needs pip install {error.name}"
            logger.warning("%s is not taken, though installed: %s", runtime, reason)
            return None

    def _export(self, runtime: str) -> Path:
        options = ExportOptions(FORMAT_OF[runtime])
        for name in options.needed:
            importlib.import_module(name)  # before it is announced
        logger.warning(
            "Exporting %s for %s, once; a large detector takes a minute or more. The file is kept "
            "in %s.",
            *(self.config.name, runtime, self.folder),
        )
        export_detector(
            self.model,
            self.config,
            self.folder / runtime,
            options,
            class_names=self.class_names,
            category_ids=self.category_ids,
        )
        return self.folder / f"{runtime}{FORMATS[options.format]}"

    def measured(self) -> dict[str, list[float]] | None:
        """Seconds of each round by runtime, if they were measured before under this very key."""
        try:
            entries = json.loads((self.folder / _MEASURED).read_text(encoding="utf-8"))
            key = self.key()
            return next((x["seconds"] for x in entries if x["key"] == key), None)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def key(self) -> dict[str, Any]:
        """What a measurement depends on: detector, files, versions, processor, threads, size."""
        there = installed_runtimes()
        files = {x: self.found(x) for x in there if x != "native"}
        return {
            "detector": self.identity,
            "files": {name: _hashes(path) for name, path in files.items() if path},
            "versions": {x: _version(x) for x in ("torch", *there) if x != "native"},
            "processor": processor.name(),
            "threads": self.threads,
            "size": list(self.size),
        }

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) px that an image of ``USUAL_IMAGE`` comes to."""
        return resized(resize_rule(self.config), *USUAL_IMAGE)

    def measure(self) -> dict[str, list[float]]:
        """Seconds of ``ROUNDS`` rounds in turn by runtime, one image each; kept in the cache."""
        models: dict[str, nn.Module] = {"native": optimize(self.model)}
        for runtime in installed_runtimes():
            if runtime != "native" and (model := self._opened_or_told(runtime)):
                models[runtime] = model
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, *self.size), generator=generator, dtype=torch.uint8)

        @torch.inference_mode()
        def run(model: nn.Module) -> object:
            return model([{"image": image}])

        seconds = in_turn({name: partial(run, model) for name, model in models.items()})
        self._keep({"key": self.key(), "seconds": seconds})
        return seconds

    def _keep(self, entry: Mapping[str, Any]) -> None:
        path = self.folder / _MEASURED
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            entries = []
        others = [x for x in entries if x.get("key") != entry["key"]]
        text = json.dumps([*others, entry], indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))


def in_turn(
    actions: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each action in ``rounds`` rounds, all actions in each, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = clock()
            action()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def _milliseconds(seconds: Mapping[str, Sequence[float]]) -> str:
    values = (f"{x} {1000 * statistics.median(y):.0f} ms" for x, y in seconds.items())
    return "medians " + ", ".join(values)


def _hashes(path: Path) -> list[str]:
    """Of an exported file, and of the weights beside it."""
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return [file_sha256(x) for x in files]


def _version(package: str) -> str:
    return str(importlib.import_module(package).__version__)


def _obstacle(model: Any, config: InferenceConfig) -> str | None:
    """Why an exported file would not do, else None."""
    post = getattr(model, "postprocessor", None)
    if post is None or not hasattr(model, "head_in_features"):
        return f"{type(model).__name__} cannot be exported"
    if not isinstance(post.nms, HardNMS):
        return f"{type(post.nms).__name__} has no form inside of a graph"
    if next(model.parameters()).device.type != "cpu":
        return "exported files run on the CPU here"
    try:
        resize_rule(config)
    except ValueError as error:
        return str(error)
    return None
