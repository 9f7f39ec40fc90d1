"""Files with fewer bits than the detector: how they are made, and what they lose by it.

They cannot equal the detector. An int8 file is measured by AP where there is annotated data, and
always by how many of the detector's detections it finds on images; an fp16 file by the latter.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..runtime import ExportedDetector, Found, Metadata
from ..runtime.metadata import KEY
from .calibration import Calibration, prepared
from .check import CheckFailed, noise
from .half import half
from .int8 import METHODS, Ranges, quantized_openvino
from .onnx_file import save_onnx, with_threshold
from .parts import Parts

PRECISIONS = ("fp32", "fp16", "int8")
NEEDED = {"fp16": 0.95, "int8": 0.5}  # share of the detector's detections that a file must find
_COMPARED = 50  # images at most
_NOISE = ((256, 320), (203, 331), (224, 224))  # px, where there are no images of the user


@dataclass(frozen=True)
class Reduction:
    """How the bits are reduced.

    Attributes:
        precision: "fp16" or "int8".
        calibration: images for int8. method: one of ``METHODS``; OpenVINO's files take NNCF's own.
        evaluate: gives a file's AP, per cent; None without annotated data.
        max_drop: AP that int8 may lose, per cent of AP as COCO counts it; None: all parts that can
            be are quantized.
        tell: takes lines about the progress.
    """

    precision: str
    calibration: Calibration | None = None
    method: str = METHODS[0]
    evaluate: Callable[[Path], float] | None = None
    max_drop: float | None = None
    tell: Callable[[str], None] = field(default=print)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[1:]:
            raise ValueError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.precision == "int8" and self.calibration is None:
            raise ValueError(
                "--precision int8 needs images to measure ranges on: --calibration FOLDER|JSON"
            )
        if self.precision == "fp16" and (self.calibration or self.max_drop is not None):
            raise ValueError("--calibration and --max-drop are for --precision int8")
        if self.max_drop is not None and self.evaluate is None:
            raise ValueError(
                "--max-drop is an AP, which takes annotated data: add --data PATH, or --val-json "
                "and --val-images, or name an annotation file with --calibration"
            )
        if self.max_drop is not None and not self.max_drop >= 0:
            raise ValueError(f"--max-drop must be a number of at least 0, got {self.max_drop}")


class Agreement(NamedTuple):
    """How far a file with fewer bits does what the detector does.

    Attributes:
        images: number of images compared. detections: of the detector, of scores from ``score``.
        matched: those for which the file has one of the class, with an IoU of at least ``iou``.
        extra: detections of the file without a partner.
        ap: of the fp32 file and of this one, per cent; None where it was not measured.
        needed: share of ``detections`` that must be matched; 0 for random weights.
    """

    precision: str
    images: int
    detections: int
    matched: int
    extra: int
    iou: float
    score: float
    ap: tuple[float, float] | None
    needed: float

    @property
    def good(self) -> bool:
        """Whether it is the same detector still; how good is for the reader of the figures."""
        if self.detections == 0 and self.needed > 0:
            return self.ap is not None  # else nothing speaks for it
        return self.matched >= self.needed * self.detections

    def __str__(self) -> str:
        text = (
            f"{self.precision}, {self.images} images: {self.matched} of the detector's "
            f"{self.detections} detections of scores from {self.score:g} are found with an IoU of "
            f"at least {self.iou:g}, and {self.extra} others"
        )
        if self.ap is None:
            return f"{text}; AP was not measured"
        exact, lowered = self.ap
        return f"{text}; AP {lowered:.2f}, of the fp32 file {exact:.2f}: {lowered - exact:+.2f}"


class Reduced(NamedTuple):
    """A file that :func:`reduced` has made, its metadata, and what it loses."""

    path: Path
    metadata: Metadata
    agreement: Agreement


def reduced(
    model: Any,
    proto: Any,
    exact: Path,
    metadata: Metadata,
    reduction: Reduction,
    *,
    trained: bool = True,
) -> Reduced:
    """Make a file with fewer bits beside the checked fp32 file ``exact``, of the same kind.

    Beside that lies ``trial``, see :func:`.checked`.

    Args:
        model: the detector. proto: its ``onnx.ModelProto``, with the modules that nodes come from.
        trained: if not, random weights are compared, but need not agree.

    Raises:
        CalibrationError: an image cannot be used.
        CheckFailed: the file has little in common with the detector, or no part of it can be
            quantized within ``max_drop``.
    """
    making = _Making(proto, exact, metadata, reduction)
    if reduction.precision == "fp16":
        path, metadata = making.fp16()
        agreement = _agreement_on_noise(model, making.trial(), metadata, trained)
    else:
        ap = None if reduction.evaluate is None else reduction.evaluate(exact)
        (path, metadata), lowered = making.int8(ap)
        images = reduction.calibration.prepared(metadata, _COMPARED)  # type: ignore[union-attr]  # checked in __post_init__
        needed = NEEDED["int8"] if trained else 0.0
        found = compared(model, path, images, iou=0.5, score=0.3)
        pair = None if ap is None or lowered is None else (ap, lowered)
        agreement = Agreement("int8", *found, 0.5, 0.3, pair, needed)
    if not agreement.good:
        raise CheckFailed(
            f"The {agreement.precision} file is far from the detector, and is not kept: {agreement}"
            if agreement.detections
            else f"The detector finds nothing of a score of {agreement.score:g} or more in the "
            f"images, so that the {agreement.precision} file cannot be compared with it, and is "
            "not kept: calibrate on images of what it detects, or name annotated data with --data"
        )
    return Reduced(path, metadata, agreement)


class _Making:
    """Writes files of one detector with fewer bits."""

    def __init__(self, proto: Any, exact: Path, metadata: Metadata, reduction: Reduction) -> None:
        self.proto, self.exact, self.reduction = proto, exact, reduction
        self.metadata = dataclasses.replace(metadata, precision=reduction.precision)
        self.parts = Parts(proto)
        self.path = exact.with_stem("reduced")
        self._ranges: Ranges | None = None
        self._half: Any = None

    def fp16(self) -> tuple[Path, Metadata]:
        metadata = self._described({"parts": list(self.parts.nodes), "exact": self._exact([])})
        if self.path.suffix == ".xml":  # weights of 16 bits, from which OpenVINO computes in 32
            metadata = self._described({"parts": ["weights"], "exact": ["computation on a CPU"]})
            self._save_openvino(self._openvino(self.exact), metadata, compress=True)
        else:
            self._half = half(self.proto, self.parts)
            save_onnx(self._half, self.path, metadata.to_json())
        return self.path, metadata

    def trial(self) -> Path:
        """The fp16 file with a score threshold of 0."""
        path = self.path.with_stem("reduced_trial")
        if self._half is None:
            model = self._openvino(self.exact.with_stem("trial"))
            self._save_openvino(model, self.metadata, compress=True, path=path)
        else:
            save_onnx(with_threshold(self._half, 0.0), path, self.metadata.to_json())
        return path

    def int8(self, ap: float | None) -> tuple[tuple[Path, Metadata], float | None]:
        """The file, and its AP where that of the fp32 file, ``ap``, is known."""
        reduction, everything = self.reduction, list(self.parts.nodes)
        if ap is None:
            return self._quantized(everything), None
        evaluate = reduction.evaluate
        assert evaluate is not None
        measured: dict[frozenset[str], float] = {}

        def loss(chosen: Sequence[str]) -> float:
            key = frozenset(chosen)
            if key not in measured:
                measured[key] = evaluate(self._quantized(chosen)[0])
                left_out = [part for part in everything if part not in key]
                said = f"all but {', '.join(left_out)}" if left_out else "all parts"
                if len(chosen) == 1:
                    said = f"{chosen[0]} alone"
                reduction.tell(f"int8, {said}: AP {measured[key]:.2f}, {measured[key] - ap:+.2f}")
            return ap - measured[key]

        reduction.tell(f"fp32: AP {ap:.2f}")
        chosen = everything
        if reduction.max_drop is not None:
            chosen = largest_within(everything, loss, reduction.max_drop)
        else:
            loss(everything)
        if frozenset(chosen) != next(reversed(measured)):  # else it was the last to be written
            self._quantized(chosen)
        return (self.path, self._int8_metadata(chosen)), measured[frozenset(chosen)]

    def _quantized(self, chosen: Sequence[str]) -> tuple[Path, Metadata]:
        calibration, metadata = self.reduction.calibration, self._int8_metadata(chosen)
        assert calibration is not None
        if self.path.suffix == ".xml":
            model = quantized_openvino(
                self._openvino(self.exact),
                self.parts,
                chosen,
                calibration.files,
                lambda file: prepared(file, metadata),
            )
            self._save_openvino(model, metadata, compress=False)
        else:
            if self._ranges is None:
                images = calibration.prepared(metadata)
                self._ranges = Ranges(self.proto, images, self.reduction.method)
            save_onnx(self._ranges.quantized(chosen), self.path, metadata.to_json())
        return self.path, metadata

    def _int8_metadata(self, chosen: Sequence[str]) -> Metadata:
        calibration = self.reduction.calibration
        assert calibration is not None
        return self._described(
            {
                "parts": list(chosen),
                "exact": self._exact([x for x in self.parts.nodes if x not in chosen]),
                "method": "nncf" if self.path.suffix == ".xml" else self.reduction.method,
                "images": len(calibration.files),
                "seed": calibration.seed,
            }
        )

    def _described(self, reduced: dict[str, Any]) -> Metadata:
        return dataclasses.replace(self.metadata, reduced=reduced)

    def _exact(self, left_out: list[str]) -> list[str]:
        return [*left_out, "outputs of the head", "offsets", "decoding", "NMS"]

    def _openvino(self, path: Path) -> Any:
        import openvino

        return openvino.Core().read_model(path)

    def _save_openvino(
        self, model: Any, metadata: Metadata, *, compress: bool, path: Path | None = None
    ) -> None:
        import openvino

        model.set_rt_info(metadata.to_json(), [KEY])
        openvino.save_model(model, path or self.path, compress_to_fp16=compress)


def largest_within(
    parts: Sequence[str], loss: Callable[[Sequence[str]], float], max_drop: float
) -> list[str]:
    """The largest set of parts whose quantization loses at most ``max_drop``, as far as is tried.

    If all parts lose more, each is measured alone. Then the one that loses most is left out, and
    the next, until the rest is within it; those that were left out in vain are taken back.

    Args:
        loss: AP lost where these parts are quantized.

    Raises:
        CheckFailed: even the best part alone loses more.
    """
    chosen, vain = list(parts), list[str]()
    if loss(chosen) <= max_drop:
        return chosen
    alone = {part: loss([part]) for part in parts}
    for worst in sorted(parts, key=lambda part: alone[part], reverse=True):
        chosen.remove(worst)
        if not chosen:
            raise CheckFailed(
                f"No part of the detector can be quantized within --max-drop {max_drop:g}: the "
                f"best of them alone, {worst}, loses {alone[worst]:.2f}"
            )
        if loss(chosen) <= max_drop:
            break
        vain.insert(0, worst)
    for part in vain:
        larger = [x for x in parts if x in chosen or x == part]
        if loss(larger) <= max_drop:
            chosen = larger
    return chosen


def compared(
    model: Any, path: Path, images: Iterable[np.ndarray], *, iou: float, score: float
) -> tuple[int, int, int, int]:
    """Detections of the detector and of a file on some images.

    Args:
        images: of shape (3, H, W). iou: of a match, at least. score: of a detection, at least.

    Returns:
        Number of images, of the detector's detections, of those the file matches, and of the
        file's others.
    """
    detector = ExportedDetector(path)
    count = total = matched = extra = 0
    for image in images:
        (ours,) = detector.run(image[None])
        with torch.no_grad():
            theirs = model([{"image": torch.from_numpy(image)}])[0]["instances"]
        expected = Found(
            theirs.pred_boxes.tensor.numpy(), theirs.scores.numpy(), theirs.pred_classes.numpy()
        )
        expected, ours = (
            Found(*(array[x.scores >= score] for array in x)) for x in (expected, ours)
        )
        pairs = _matches(expected, ours, iou)
        count, total = count + 1, total + len(expected.scores)
        matched, extra = matched + pairs, extra + len(ours.scores) - pairs
    return count, total, matched, extra


def _matches(expected: Found, found: Found, iou: float) -> int:
    """How many have a partner of their class, each one at most, the best scores first."""
    if not len(expected.scores) or not len(found.scores):
        return 0
    a, b = expected.boxes[:, None], found.boxes[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.clip(sides, 0, None), axis=-1)
    areas = [np.prod(x[..., 2:] - x[..., :2], axis=-1) for x in (a, b)]
    overlap = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    overlap[expected.classes[:, None] != found.classes[None]] = -1.0
    pairs = 0
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= iou:
            overlap[:, best] = -1.0
            pairs += 1
    return pairs


def _agreement_on_noise(model: Any, trial: Path, metadata: Metadata, trained: bool) -> Agreement:
    """Of an fp16 file, at a score threshold of 0, as noise makes few detections."""
    sizes = _NOISE if metadata.static_size is None else [tuple(metadata.static_size)] * 3
    generator = torch.Generator().manual_seed(1)
    images = [noise((1, 3, *size), generator)[0].numpy() for size in sizes]
    lowered = copy.copy(model)
    lowered.postprocessor = copy.copy(model.postprocessor)
    lowered.postprocessor.score_thresh = 0.0
    found = compared(lowered, trial, images, iou=0.9, score=0.0)
    return Agreement("fp16", *found, 0.9, 0.0, None, NEEDED["fp16"] if trained else 0.0)
