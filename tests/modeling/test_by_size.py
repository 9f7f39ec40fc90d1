"""An image has the same detections alone and in every company."""

import itertools
from typing import Any

import pytest
import torch
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.structures import Instances
from tiny import picture, tiny_atss, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import nn
from vfnet_yolof.inference.tta import DenseTTA
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.by_size import BySize, detect_by_size, padded_size
from vfnet_yolof.optimization import optimize

MODELS = {"vfnet": tiny_vfnet, "gfl": tiny_gfl, "atss": tiny_atss, "yolof": tiny_yolof}
# (H, W); the last two have the size of the first when padded to a multiple of 32, or of 128
SIZES = [(128, 128), (64, 160), (192, 96), (128, 128), (100, 97)]


def busy(name: str) -> nn.Module:
    """With random weights, and a threshold that lets many boxes pass.

    Scores are spread and nothing is suppressed: of scores and overlaps that are nearly equal,
    rounding would decide which boxes there are.
    """
    model = MODELS[name]().eval()
    for key, parameter in model.head.named_parameters():
        if key.startswith(("cls_logits", "cls_score")) and key.endswith("weight"):
            parameter.data *= 100
    model.postprocessor.score_thresh, model.postprocessor.topk_candidates = 0.0, 15
    model.postprocessor.nms = HardNMS(1.0)
    return model


def batch(sizes: list[tuple[int, int]] = SIZES) -> list[dict[str, Any]]:
    return [picture(size=size, seed=i) for i, size in enumerate(sizes)]


def detect(model: nn.Module, inputs: list[dict[str, Any]]) -> list[Instances]:
    with torch.no_grad():
        return [x["instances"] for x in model(inputs)]


def rows(found: Instances) -> torch.Tensor:
    """(P, 6): box in px, score, and the class times a number that no tolerance reaches."""
    return torch.cat(
        [
            found.pred_boxes.tensor,
            found.scores[:, None],
            1e6 * found.pred_classes[:, None].float(),
        ],
        dim=1,
    )


def differences(one: list[Instances], other: list[Instances]) -> list[float]:
    """How far each image's detections are from the nearest of the other side's, at most.

    Not in order: rounding may exchange two with nearly the same score.
    """
    found = []
    for a, b in zip(one, other, strict=True):
        apart = (rows(a)[:, None] - rows(b)[None]).abs().amax(-1)
        nearest = [*apart.amin(0).tolist(), *apart.amin(1).tolist()]
        found.append(max(nearest) if len(a) == len(b) else float("inf"))
    return found


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_company_and_order_change_nothing(name: str, optimized: bool) -> None:
    model = busy(name)
    model = optimize(model) if optimized else model
    inputs = batch()
    alone = [detect(model, [x])[0] for x in inputs]
    assert all(len(x) > 10 for x in alone)
    together = BySize(model)
    for order in [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1), (2, 1), (3, 0, 1)]:
        got = detect(together, [inputs[i] for i in order])
        assert max(differences(got, [alone[i] for i in order])) < 1e-3, order


@pytest.mark.parametrize("name", MODELS)
def test_padding_to_the_largest_changes_something(name: str) -> None:
    """So that the test above tests something; the model itself does what the reference does."""
    model, inputs = busy(name), batch()
    alone = [detect(model, [x])[0] for x in inputs]
    changed = [x > 1e-2 for x in differences(detect(model, inputs), alone)]
    assert sum(changed) == len(inputs), changed


@pytest.mark.parametrize("name", ["vfnet", "yolof"])
def test_multi_scale_testing(name: str) -> None:
    model, inputs = busy(name), batch()
    tta = DenseTTA(model, sizes=[(160, 96), (192, 128), (160, 100)])
    alone = [detect(tta, [x])[0] for x in inputs]
    for order in itertools.islice(itertools.permutations(range(len(inputs))), 0, 120, 60):
        got = detect(BySize(tta), [inputs[i] for i in order])
        assert max(differences(got, [alone[i] for i in order])) < 1e-3, order


class Seen(nn.Module):
    """Remembers which images came together."""

    def __init__(self, divisor: int | None = None) -> None:
        super().__init__()
        self.calls: list[list[int]] = []
        self.modes: set[bool] = set()
        if divisor is not None:
            self.backbone = nn.Identity()
            self.backbone.size_divisibility = divisor

    def forward(self, inputs: list[dict[str, Any]]) -> list[int]:
        self.calls.append([x["number"] for x in inputs])
        self.modes.add(self.training)
        return [10 * x["number"] for x in inputs]


def empty(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"image": torch.zeros(3, *s), "number": i} for i, s in enumerate(sizes)]


@pytest.mark.parametrize(
    ("divisor", "calls"),
    [(32, [[0, 2, 3], [1]]), (0, [[0], [1], [2], [3]]), (None, [[0], [1], [2], [3]])],
)
def test_images_of_one_padded_size_go_together(divisor: int | None, calls: list) -> None:
    model = Seen(divisor)
    inputs = empty((60, 90), (60, 97), (33, 65), (64, 96))
    assert detect_by_size(model, inputs) == [0, 10, 20, 30]
    assert model.calls == calls
    assert detect_by_size(model, []) == []


def test_padded_size() -> None:
    assert padded_size(Seen(32), (1, 64)) == (32, 64)
    assert padded_size(Seen(0), (1, 65)) == (1, 65)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_in_the_mode_it_was_in(training: bool) -> None:
    model = Seen(32).train(training)
    inputs = empty((60, 90), (60, 97))
    inference_on_dataset(BySize(model), [inputs], DatasetEvaluator())
    assert model.modes == {False}
    assert model.training is training
