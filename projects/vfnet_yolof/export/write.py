"""An exported file, from the detector to the check of what was written."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data import transforms as T
from torch import Tensor, nn

from ..config.inference import InferenceConfig
from ..layers.deform_conv import deform_conv_implementation
from ..layers.soft_nms import SoftNMS
from ..runtime import Metadata
from ..runtime.metadata import CHECKSUMS, KEY, checksums, file_suffixes, noted_checksums
from ..utils import __version__
from ..utils.files import replacing
from .check import Check, checked
from .graph import DetectorGraph
from .onnx_file import onnx_model, quiet, save_onnx, with_threshold
from .precision import Agreement, Reduction, reduced

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
_ONNX = ("onnx", "onnxscript", "onnxruntime")
_NEEDED = {"onnx": _ONNX, "openvino": (*_ONNX, "openvino"), "torch-export": ()}
_EXAMPLE = (224, 288)  # px; no size of it equals another, so that none is taken for a constant


@dataclass(frozen=True)
class ExportOptions:
    """How a file is written.

    Attributes:
        format: one of ``FORMATS``. static_size: (H, W) px, the only one the file takes, or None.
        nms: inside of the graph. deform: "gridsample" or "deformconv", see :mod:`.onnx_file`.
        reduction: to fewer bits than float32, or None.
    """

    format: str = "onnx"
    static_size: tuple[int, int] | None = None
    nms: bool = True
    deform: str = "gridsample"
    reduction: Reduction | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is none of {', '.join(FORMATS)}")
        if self.deform not in ("gridsample", "deformconv"):
            raise ValueError(f"deform {self.deform!r} is neither gridsample nor deformconv")
        if self.deform == "deformconv" and self.format != "onnx":
            raise ValueError(
                "--deform deformconv is an operator of ONNX: OpenVINO does not read it"
            )
        if self.reduction is not None and self.format == "torch-export":
            raise ValueError(
                f"--precision {self.reduction.precision} is for ONNX and OpenVINO, not for .pt2"
            )

    @property
    def needed(self) -> tuple[str, ...]:
        """Packages that the export takes."""
        needed = _NEEDED[self.format]
        if self.format == "openvino" and self.reduction and self.reduction.precision == "int8":
            return (*needed, "nncf")
        return needed


def export_detector(
    model: nn.Module,
    config: InferenceConfig,
    path: str | os.PathLike[str],
    options: ExportOptions,
    *,
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    config_text: str | None = None,
    license: str | None = None,
    trained: bool = True,
) -> list[Check | Agreement]:
    """Write a detector into a file and check it against the detector.

    Beside the file a JSON file of the same name has its metadata. A file that fails its check, or
    that is interrupted, is not left behind.

    Args:
        model: with its weights, not optimized, on the CPU. config: how images get to it.
        path: of the file, without suffix. class_names, category_ids: of the K classes.
        config_text: the configuration as YAML. license: of the weights, where known.
        trained: whether the weights are; decides how exact boxes can be, see :func:`.checked`.

    Returns:
        What the check has measured; of a file with fewer bits, last, what it loses.

    Raises:
        ValueError: the detector, or the resizing of its images, cannot be exported, or a JSON
            file of another kind has the name of that with the metadata.
        CalibrationError: an image to calibrate on cannot be used.
        CheckFailed: the file does not give what the detector gives.
        ModuleNotFoundError: onnx, onnxscript, onnxruntime, openvino or nncf is not installed.
    """
    for name in options.needed:
        importlib.import_module(name)  # before the work, not after it
    target = Path(f"{path}{FORMATS[options.format]}")
    require_own_json(target)
    model = model.eval()
    graph = DetectorGraph(model, onnx=options.format != "torch-export", nms=options.nms)
    metadata = file_metadata(
        model, config, options, class_names, category_ids=category_ids, config_text=config_text
    )
    metadata = dataclasses.replace(metadata, license=license, identity=identity(model, config))
    if options.reduction is not None and options.reduction.calibration is not None:
        options.reduction.calibration.try_out(metadata)
    with tempfile.TemporaryDirectory(prefix="vfnet_yolof_export.") as folder:
        scratch, trial = (Path(folder) / f"{name}{target.suffix}" for name in ("model", "trial"))
        proto, metadata = _write(graph, scratch, trial, metadata, options)
        checks: list[Check | Agreement] = [
            *checked(model, scratch, trial, metadata, trained=trained)
        ]
        if options.reduction is not None:
            scratch, metadata, agreement = reduced(
                model, proto, scratch, metadata, options.reduction, trained=trained
            )
            checks.append(agreement)
        sums = checksums(scratch)
        _forget(target)
        if options.format == "openvino":
            _place(scratch.with_suffix(".bin"), target.with_suffix(".bin"))
        _place(scratch, target)
    describe(target, metadata, sums)
    return checks


def describe(target: Path, metadata: Metadata, sums: dict[str, str]) -> None:
    """Write the JSON file: the metadata and checksums, those of other formats of this name too."""
    noted = noted_checksums(target) | sums
    _write_beside(target, dataclasses.asdict(metadata) | {CHECKSUMS: noted})


def _forget(target: Path) -> None:
    """Take what is about to be replaced out of the JSON file, lest an interruption part them."""
    replaced, noted = file_suffixes(target), noted_checksums(target)
    if not noted.keys().isdisjoint(replaced):
        entries = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        kept = {suffix: value for suffix, value in noted.items() if suffix not in replaced}
        _write_beside(target, entries | {CHECKSUMS: kept})


def _write_beside(target: Path, entries: dict[str, Any]) -> None:
    with replacing(target.with_suffix(".json")) as file:
        file.write_text(json.dumps(entries, indent=1), encoding="utf-8")


def require_own_json(target: Path) -> None:
    """Refuse to overwrite somebody else's file.

    Raises:
        ValueError: the JSON file that the export would write is there and was not made by one.
    """
    beside = target.with_suffix(".json")
    if not beside.exists():
        return
    try:
        own = {"detector", "resize", "format"} <= json.loads(beside.read_text("utf-8")).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        own = False
    if not own:
        raise ValueError(
            f"{beside} is there already, and no export has made it: move it, or name another "
            "--output"
        )


def _place(file: Path, target: Path) -> None:
    with replacing(target) as unfinished:
        shutil.copyfile(file, unfinished)


def _write(
    graph: DetectorGraph, path: Path, trial: Path, metadata: Metadata, options: ExportOptions
) -> tuple[Any, Metadata]:
    """Write the file, and beside it ``trial``, the same but for a score threshold of 0.

    Returns:
        The ``onnx.ModelProto``, and what is in the file. Of a ``.pt2`` None, and there is no
        ``trial``: :mod:`.check` sets the threshold of the program that it has read.
    """
    static = options.static_size is not None
    example = torch.rand(2, 3, *(options.static_size or _EXAMPLE)) * 255
    if options.format == "torch-export":
        return None, _write_torch(graph, example, path, metadata)
    text = metadata.to_json()
    model = onnx_model(graph, example, static=static, deform=options.deform)
    for file, proto in ((path, model), (trial, with_threshold(model, 0.0))):
        onnx_path = file.with_suffix(".onnx")
        save_onnx(proto, onnx_path, text)
        if options.format == "openvino":
            import openvino

            converted = openvino.convert_model(onnx_path)
            converted.set_rt_info(text, [KEY])
            openvino.save_model(converted, file, compress_to_fp16=False)
    return model, metadata


def _write_torch(graph: DetectorGraph, example: Tensor, path: Path, metadata: Metadata) -> Metadata:
    static = metadata.static_size is not None
    with quiet(), torch.no_grad(), deform_conv_implementation("torchvision"):
        free = (0,) if static else (0, 2, 3)
        shapes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
        program = torch.export.export(graph, (example,), dynamic_shapes=(shapes,), strict=False)
        if not static:
            metadata = dataclasses.replace(metadata, least_side=_least_side(graph))
        torch.export.save(program, path, extra_files={KEY: metadata.to_json()})
    return metadata


def _least_side(graph: DetectorGraph) -> int:
    """Px that height and width of a dynamic ``.pt2`` need.

    ``torch.export`` takes sizes for other than 1, those of the coarsest map among them.
    """
    model = graph.model
    shapes = model.backbone.output_shape()
    return 1 + max(int(shapes[name].stride) for name in model.head_in_features)


def file_metadata(
    model: Any,
    config: InferenceConfig,
    options: ExportOptions,
    class_names: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    config_text: str | None = None,
) -> Metadata:
    """What a file says about itself; arguments and errors as of :func:`export_detector`."""
    post = model.postprocessor
    return Metadata(
        detector=type(model).__name__,
        version=__version__,
        class_names=list(class_names),
        category_ids=None if category_ids is None else [int(x) for x in category_ids],
        resize=resize_rule(config),
        interpolation=config.interpolation,
        channel_order=config.image_format,
        pixel_mean=model.pixel_mean.flatten().tolist(),
        pixel_std=model.pixel_std.flatten().tolist(),
        divisor=max(1, model.backbone.size_divisibility),
        static_size=None if options.static_size is None else list(options.static_size),
        nms="inside" if options.nms else "outside",
        score_thresh=post.score_thresh,
        iou_threshold=getattr(post.nms, "iou_threshold", 0.0),
        class_agnostic=bool(getattr(post.nms, "class_agnostic", False)),
        max_detections=post.max_detections,
        soft_nms=_soft_nms(post.nms),
        config=config_text,
    )


def identity(model: Any, config: InferenceConfig) -> str:
    """SHA-256 of what decides a detector's results: its settings, score threshold and weights.

    How images are resized is not part of it, as that is done before the graph, nor are the names of
    its classes.

    Args:
        model: not optimized. config: it was built from.
    """
    post = getattr(model, "postprocessor", None)
    settings = [type(model).__name__, config.model, getattr(post, "score_thresh", None)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _soft_nms(nms: Any) -> dict[str, Any] | None:
    if not isinstance(nms, SoftNMS):
        return None
    return {"method": nms.method, "sigma": nms.sigma, "min_score": nms.min_score}


def resize_rule(config: InferenceConfig) -> dict[str, Any]:
    """The test augmentations as :class:`.Metadata` has them.

    Raises:
        ValueError: they do more than to resize, or so at random.
    """
    steps = list(config.augmentations.augs)
    if not steps:
        return {"kind": "none"}
    step = steps[0]
    if len(steps) == 1 and type(step) is T.Resize:
        return {"kind": "fixed", "height": int(step.shape[0]), "width": int(step.shape[1])}
    if len(steps) == 1 and type(step) is T.ResizeShortestEdge:
        lengths = set(step.short_edge_length)
        if len(lengths) == 1:
            return {
                "kind": "shortest_edge",
                "short_edge_length": int(lengths.pop()),
                "max_size": int(step.max_size),
            }
    names = json.dumps([type(x).__name__ for x in steps])
    raise ValueError(
        f"{config.name}: dataloader.test.mapper.augmentations are {names}; an exported file can "
        "say one ResizeShortestEdge of one length, one Resize, or none"
    )
