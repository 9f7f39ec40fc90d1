"""What the check of an exported file lets pass, and what not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_yolof
from vfnet_yolof.export.calibration import Calibration, CalibrationError
from vfnet_yolof.export.check import Check, CheckFailed, _checked, _compared, noise
from vfnet_yolof.export.graph import DetectorGraph
from vfnet_yolof.export.precision import Agreement
from vfnet_yolof.modeling.postprocess import PostProcessor
from vfnet_yolof.runtime import ExportedFileError, Found, Metadata

NONE = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def found(*scores: float) -> Found:
    """Detections of one class, each at a place of its own."""
    corner = 20.0 * np.arange(len(scores), dtype=np.float32)[:, None] + np.zeros(2, np.float32)
    boxes = np.concatenate([corner, corner + 10], axis=1)
    return Found(boxes, np.array(scores, np.float32), np.zeros(len(scores), np.int64))


def compared(expected: Found, got: Found, limit: int = 100, lowest: float = 0.0) -> Check:
    return _compared((64, 64), [expected], [got], limit, lowest)._replace(allowed=0.01)


@pytest.mark.parametrize(("expected", "got"), [(found(0.9), NONE), (NONE, found(0.9))])
def test_a_detection_that_is_lost_or_invented_is_a_fault(expected: Found, got: Found) -> None:
    check = compared(expected, got)
    assert check.unmatched == 1 and not check.good


def test_what_a_limit_or_a_threshold_cuts_off_may_differ() -> None:
    last = found(0.9, 0.5, 0.30001)
    other = last._replace(boxes=last.boxes + np.float32([[0] * 4, [0] * 4, [30] * 4]))
    assert compared(last, other, limit=3).unmatched == 0
    assert compared(last, other, limit=4).unmatched == 2
    assert compared(last, found(0.9, 0.5), lowest=0.3).unmatched == 0
    assert compared(last, found(0.9, 0.5), lowest=0.2).unmatched == 1


def test_fewer_bits_are_not_good_where_nothing_was_compared() -> None:
    agreement = Agreement("int8", 50, 0, 0, 7, 0.5, 0.3, None, 0.5)
    assert not agreement.good
    assert agreement._replace(ap=(40.0, 39.9)).good
    assert agreement._replace(detections=10, matched=5).good


def test_calibration_that_is_not_there_is_named() -> None:
    with pytest.raises(CalibrationError, match="neither a folder nor a file no/such"):
        Calibration.of("no/such")


def metadata_with(**changes: Any) -> Metadata:
    """Of a detector of one class."""
    usual: dict[str, Any] = {
        "detector": "VFNet",
        "version": "1",
        "class_names": ["cat"],
        "category_ids": None,
        "resize": {"kind": "none"},
        "interpolation": "pil",
        "channel_order": "RGB",
        "pixel_mean": [0.0] * 3,
        "pixel_std": [1.0] * 3,
        "divisor": 32,
        "static_size": None,
        "nms": "inside",
        "score_thresh": 0.05,
        "iou_threshold": 0.6,
        "class_agnostic": False,
        "max_detections": 100,
    }
    return Metadata(**usual | changes)


@pytest.mark.parametrize(
    "wrong", [{"iou_threshold": 0.1}, {"class_agnostic": True}, {"max_detections": 5}], ids=str
)
def test_candidates_are_compared_as_the_files_users_get_them(wrong: dict[str, Any]) -> None:
    """Through the file's own NMS, with the detector's own: neither may differ."""
    model = tiny_yolof().eval()
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    model.postprocessor.score_thresh = 0.0
    graph = DetectorGraph(model, onnx=False, nms=False)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [x.numpy() for x in graph(torch.from_numpy(images))]

    images = noise((2, 3, 64, 96), torch.Generator().manual_seed(0))
    right = metadata_with(nms="outside")
    assert _checked(run, model, images, right, 0.01).detections == 200
    with pytest.raises(CheckFailed, match="differs from the detector"):
        _checked(run, model, images, dataclasses.replace(right, **wrong), 0.01)


def test_a_way_of_resizing_that_is_not_known_is_refused() -> None:
    metadata = metadata_with(resize={"kind": "letterbox"})
    with pytest.raises(ExportedFileError, match="'letterbox', which is not known"):
        Metadata.from_json(metadata.to_json(), "model.onnx")
    damaged = metadata.to_json().replace('{\n  "kind": "letterbox"\n }', "[]")
    with pytest.raises(ExportedFileError, match=r"^model\.onnx: its entry .* is damaged"):
        Metadata.from_json(damaged, "model.onnx")


def test_post_processing_of_ones_own_is_refused() -> None:
    class Own(PostProcessor):
        """Would be left out of the graph."""

    model = tiny_yolof()
    model.postprocessor = Own()
    with pytest.raises(ValueError, match="Own cannot be exported"):
        DetectorGraph(model, onnx=True)
