"""The graph gives what the detector gives, at any size; its operators do what their twins do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import tiny_atss, tiny_foveabox, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import Tensor, nn
from vfnet_yolof.export.graph import DetectorGraph, suppressed
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.layers.soft_nms import SoftNMS

SIZES = [(64, 96), (97, 131), (20, 30)]  # px; the last is smaller than the deepest stride


def with_scores(model: nn.Module) -> nn.Module:
    """The model with detections in every image."""
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    model.postprocessor.score_thresh = 0.003
    return model.eval()


def expect_equal(graph: DetectorGraph, model: nn.Module, images: Tensor) -> int:
    with torch.no_grad():
        boxes, scores, classes, counts = graph(images)
        expected = [x["instances"] for x in model([{"image": image} for image in images])]
    for i, theirs in enumerate(expected):
        count = int(counts[i])
        assert count == len(theirs)
        torch.testing.assert_close(scores[i, :count], theirs.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(boxes[i, :count], theirs.pred_boxes.tensor, atol=1e-3, rtol=0)
        assert classes[i, :count].tolist() == theirs.pred_classes.tolist()
        assert not scores[i, count:].any() and not boxes[i, count:].any()
    return sum(len(x) for x in expected)


@pytest.mark.parametrize("make", [tiny_vfnet, tiny_gfl, tiny_atss, tiny_yolof, tiny_foveabox])
@pytest.mark.parametrize("onnx", [True, False])
def test_equal_to_the_detector(make: Callable[..., nn.Module], onnx: bool) -> None:
    model = with_scores(make())
    graph = DetectorGraph(model, onnx=onnx)
    counts = []
    for seed, size in enumerate(SIZES):
        torch.manual_seed(seed)
        images = (torch.rand(2, 3, *size) * 255).round()
        counts.append(expect_equal(graph, model, images))
    assert min(counts) > 0 and sum(counts) > 10


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": "location"},
        {"clip": "after_nms"},
        {"nms": HardNMS(0.4, class_agnostic=True)},
        {"max_detections": 7, "topk_candidates": 20},
    ],
    ids=["one pair each", "clipped late", "one class", "few"],
)
def test_equal_whatever_the_postprocessor_does(changes: dict[str, object]) -> None:
    model = with_scores(tiny_gfl())
    vars(model.postprocessor).update(changes)
    torch.manual_seed(0)
    images = (torch.rand(3, 3, 130, 220) * 255).round()
    assert expect_equal(DetectorGraph(model, onnx=False), model, images) > 5


def test_candidates_where_nms_is_outside() -> None:
    model = with_scores(tiny_gfl())
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        boxes, scores = DetectorGraph(model, onnx=False, nms=False)(images)
        _, best, _, _ = DetectorGraph(model, onnx=False)(images)
    assert boxes.shape == (*scores.shape[:2], 4) and scores.shape[2] == model.num_classes
    assert scores.amax((1, 2)).tolist() == best[:, 0].tolist()


def test_suppression_apart_for_images_and_classes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]).expand(2, 3, 4)
    scores = torch.zeros(2, 3, 2)
    scores[0, :, 0] = torch.tensor([0.9, 0.8, 0.7])
    scores[1, 0, 0], scores[1, 1, 1] = 0.5, 0.6
    kept = suppressed(boxes, scores, 0.5, False, 10)
    expected = scores.clone()
    expected[0, 1, 0] = 0
    assert kept.equal(expected)
    agnostic = suppressed(boxes, scores, 0.5, True, 10)
    expected[1, 0, 0] = 0
    assert agnostic.equal(expected)


def test_what_has_no_graph() -> None:
    model = tiny_gfl()
    model.postprocessor.nms = SoftNMS()
    with pytest.raises(ValueError, match="SoftNMS has no form inside of a graph.*--nms outside"):
        DetectorGraph(model, onnx=True)
    with pytest.raises(ValueError, match="Linear is none of this project's detectors"):
        DetectorGraph(nn.Linear(1, 1), onnx=True)
