"""Files of the three detectors for every runtime, to be measured by :mod:`.runtimes`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.config.saved import config_text
from vfnet_yolof.export.calibration import Calibration, prepared
from vfnet_yolof.export.graph import DetectorGraph
from vfnet_yolof.export.int8 import METHODS, Ranges, quantized_openvino
from vfnet_yolof.export.onnx_file import onnx_model, save_onnx
from vfnet_yolof.export.parts import Parts
from vfnet_yolof.export.write import ExportOptions, file_metadata
from vfnet_yolof.runtime import Metadata
from vfnet_yolof.runtime.metadata import KEY

from .models import build_model, pictures

DETECTORS = {
    "VFNet": "vfnet/vfnet_r50_fpn_1x.py",
    "GFL": "gfl/gfl_r50_fpn_1x.py",
    "YOLOF": "yolof/yolof_r50_c5_1x.py",
}
SIZE = (480, 640)  # px, of the measured image
PHOTO = "image.jpg"
CALIBRATED_ON = 2  # images of noise, where none are given
_EXAMPLE = (224, 288)  # px; no size of it equals another, so that none is taken for a constant
_OUTPUTS = "outputs of the head"
_ABOUT = "about.json"


class Kind(NamedTuple):
    """One file of a detector. title: of its variant."""

    title: str
    suffix: str
    needed: tuple[str, ...] = ()

    def path(self, folder: Path, detector: str) -> Path:
        return folder / f"{detector}{self.suffix}"


_ONNX, _OPENVINO = ("onnx", "onnxscript", "onnxruntime"), ("openvino",)
KINDS = {
    "ort": Kind("onnxruntime fp32", "_fp32.onnx", _ONNX),
    "ov": Kind("OpenVINO fp32", "_fp32.xml", (*_ONNX, *_OPENVINO)),
    "ort8": Kind("onnxruntime int8", "_int8.onnx", _ONNX),
    "ov8": Kind("OpenVINO int8", "_int8.xml", (*_ONNX, *_OPENVINO, "nncf")),
    "ort8all": Kind("onnxruntime int8, all layers", "_int8_all.onnx", _ONNX),
    "ov8all": Kind("OpenVINO int8, all layers", "_int8_all.xml", (*_ONNX, *_OPENVINO, "nncf")),
}


def missing(kind: Kind) -> list[str]:
    """Packages that the kind of file takes and that are not installed."""
    return [name for name in kind.needed if importlib.util.find_spec(name) is None]


def about(folder: Path) -> dict[str, Any]:
    """What :func:`prepare` notes: ``calibration``, and the files it could not make.

    Raises:
        FileNotFoundError: the folder was not prepared.
    """
    path = folder / _ABOUT
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_ABOUT}: make the files first, --prepare {folder}"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def require_known(detectors: Sequence[str]) -> None:
    """Raises ValueError for a name that is none of ``DETECTORS``."""
    unknown = [name for name in detectors if name not in DETECTORS]
    if unknown:
        raise ValueError(f"no such detector: {unknown[0]}; there are {', '.join(DETECTORS)}")


def prepare(
    folder: Path,
    *,
    calibration: str | os.PathLike[str] | None = None,
    detectors: Sequence[str] = tuple(DETECTORS),
) -> None:
    """Write a checkpoint of random weights and all files of each detector, and the image.

    The weights find about a thousand candidates in the image, see :mod:`.models`. Files that are
    there stay. The int8 files have the layers that ``vfnet-yolof export --precision int8`` gives
    8 bits by default; those of "all layers" the outputs of the head, too.

    Args:
        calibration: a folder of images; by default ``CALIBRATED_ON`` images of noise, which serve
            for measuring times, not AP.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_photo(folder / PHOTO)
    source = Path(calibration) if calibration else _noise(folder / "calibration")
    images = Calibration.of(source)
    left_out = {kind.title: missing(kind) for kind in KINDS.values() if missing(kind)}
    said = "noise" if calibration is None else Path(calibration).name
    content = {"calibration": f"{said}: {images}", "not installed": left_out}
    (folder / _ABOUT).write_text(json.dumps(content, indent=1), encoding="utf-8")
    for name in detectors:
        checkpoint = folder / f"{name}.pth"
        if not checkpoint.is_file():
            _save_checkpoint(DETECTORS[name], checkpoint)
        wanted = [
            key
            for key, kind in KINDS.items()
            if not missing(kind) and not kind.path(folder, name).is_file()
        ]
        if wanted:
            _Making(folder, name, images).write(wanted)


def load_detector(checkpoint: Path) -> nn.Module:
    """The detector that the files were made of, in evaluation mode."""
    model = read_inference_config(checkpoint).build_model()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return model.eval()


class _Making:
    """Writes the files of one detector; its graph is exported once."""

    def __init__(self, folder: Path, name: str, images: Calibration) -> None:
        self.folder, self.name, self.images = folder, name, images
        checkpoint = folder / f"{name}.pth"
        model = load_detector(checkpoint)
        config = read_inference_config(checkpoint)
        names = [str(i) for i in range(model.num_classes)]
        self.metadata = file_metadata(model, config, ExportOptions(), names)
        example = torch.rand(2, 3, *_EXAMPLE) * 255
        self.proto = onnx_model(DetectorGraph(model, onnx=True), example, static=False)
        self.parts = Parts(self.proto)
        self.default = list(self.parts.nodes)
        self.parts.nodes[_OUTPUTS] = self.parts.exact
        self._ranges: Ranges | None = None

    def write(self, wanted: Sequence[str]) -> None:
        exact = KINDS["ort"].path(self.folder, self.name)
        save_onnx(self.proto, exact, self.metadata.to_json())
        for key in wanted:
            began = time.perf_counter()
            path = KINDS[key].path(self.folder, self.name)
            unfinished = path.with_stem(f"unfinished_{path.stem}")
            chosen = self.default + ([_OUTPUTS] if key.endswith("all") else [])
            if path.suffix == ".xml":
                self._openvino(unfinished, exact, chosen if "8" in key else None)
                unfinished.with_suffix(".bin").replace(path.with_suffix(".bin"))
            elif "8" in key:
                save_onnx(self._quantized(chosen), unfinished, self._described(chosen).to_json())
            else:
                shutil.copyfile(exact, unfinished)
            unfinished.replace(path)
            print(f"{path} ({time.perf_counter() - began:.0f} s)", flush=True)

    def _quantized(self, chosen: list[str]) -> Any:
        if self._ranges is None:
            images = self.images.prepared(self.metadata)
            self._ranges = Ranges(self.proto, images, METHODS[0])
            self._ranges.parts.nodes[_OUTPUTS] = self._ranges.parts.exact
        return self._ranges.quantized(chosen)

    def _openvino(self, path: Path, exact: Path, chosen: list[str] | None) -> None:
        import openvino

        model, metadata = openvino.convert_model(exact), self.metadata
        if chosen is not None:
            metadata = self._described(chosen)
            model = quantized_openvino(
                model,
                self.parts,
                chosen,
                self.images.files,
                lambda file: prepared(file, metadata),
            )
        model.set_rt_info(metadata.to_json(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)

    def _described(self, chosen: list[str]) -> Metadata:
        exact = [part for part in self.parts.nodes if part not in chosen]
        reduced = {"parts": chosen, "exact": [*exact, "decoding", "NMS"]}
        return dataclasses.replace(self.metadata, precision="int8", reduced=reduced)


def _save_checkpoint(config: str, path: Path) -> None:
    """Random weights with a config that leaves images of ``SIZE`` as they are."""
    model = build_model(config, pictures(1, SIZE))
    cfg = load_config(config)
    cfg.model.postprocessor.score_thresh = model.postprocessor.score_thresh
    resize = {"short_edge_length": min(SIZE), "max_size": max(SIZE)}
    cfg.dataloader.test.mapper.augmentations = [
        {"_target_": "detectron2.data.transforms.ResizeShortestEdge", **resize}
    ]
    names = [str(i) for i in range(model.num_classes)]
    assert OmegaConf.is_config(cfg)
    content = {"model": model.state_dict(), "class_names": names, "config": config_text(cfg)}
    torch.save(content, path)


def _save_photo(path: Path) -> None:
    if not path.is_file():
        _image(0).save(path, quality=90)


def _noise(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for seed in range(CALIBRATED_ON):
        _image(seed).save(folder / f"{seed}.png")
    return folder


def _image(seed: int) -> Image.Image:
    (inputs,) = pictures(1, SIZE, seed=seed)
    return Image.fromarray(inputs["image"].permute(1, 2, 0).numpy())
