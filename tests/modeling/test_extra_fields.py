"""What a detector can add to its detections comes where it is asked for, and nowhere else."""

from collections.abc import Callable

import pytest
import torch
from detectron2.structures import Instances
from tiny import picture, tiny_atss, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import nn
from vfnet_yolof.modeling.by_size import BySize, detect_by_size
from vfnet_yolof.optimization import optimize

PLAIN = {"pred_boxes", "scores", "pred_classes"}
STAR = {"init_boxes", "star_points"}
SIZES = [(64, 64), (96, 64), (64, 64)]  # (H, W): two go together, one alone


def busy(make: Callable[..., nn.Module]) -> nn.Module:
    model = make().eval()
    model.postprocessor.score_thresh, model.postprocessor.topk_candidates = 0.0, 20
    return model


def instances(outputs: list[dict[str, Instances]]) -> list[Instances]:
    return [x["instances"] for x in outputs]


WRAPPED = {
    "alone": lambda model: model,
    "by size": BySize,
    "optimized": optimize,
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@torch.no_grad()
def test_fields_come_where_they_are_asked_for(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(busy(tiny_vfnet))
    inputs = [picture(size=size, seed=i) for i, size in enumerate(SIZES)]
    before = instances(model(inputs))
    asked = instances(model.detect(inputs, fields=("star",)))
    after = instances(model(inputs))
    for plain, found, again in zip(before, asked, after, strict=True):
        assert set(plain.get_fields()) == set(again.get_fields()) == PLAIN
        assert set(found.get_fields()) == PLAIN | STAR
        assert len(found) == len(plain) > 0
        assert found.star_points.shape == (len(found), 9, 2)
        torch.testing.assert_close(found.pred_boxes.tensor, plain.pred_boxes.tensor)


@torch.no_grad()
def test_detecting_without_fields_is_a_call_in_evaluation() -> None:
    for make in (tiny_vfnet, tiny_gfl, tiny_atss, tiny_yolof):
        model = busy(make)
        (called,), (detected,) = instances(model([picture()])), instances(model.detect([picture()]))
        assert set(detected.get_fields()) == PLAIN
        assert torch.equal(called.pred_boxes.tensor, detected.pred_boxes.tensor)
        assert torch.equal(called.scores, detected.scores)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (tiny_vfnet, "VFNet has no field 'distributions' to add; it has star"),
        (tiny_gfl, "GFL has no field 'distribution' to add; it has distributions"),
        (tiny_atss, "GFL has no field 'star' to add; it has none"),
        (tiny_yolof, "YOLOF has no field 'star' to add; it has none"),
    ],
)
def test_other_fields_are_refused_by_name(make: Callable[..., nn.Module], message: str) -> None:
    name = message.split("'")[1]
    with pytest.raises(TypeError, match=message):
        detect_by_size(make().eval(), [picture()], [name])


def test_a_model_of_another_kind_has_no_fields() -> None:
    with pytest.raises(TypeError, match="Identity has no fields to add"):
        detect_by_size(nn.Identity(), [picture()], ["star"])


def test_a_model_in_training_does_not_detect() -> None:
    with pytest.raises(RuntimeError, match="VFNet is in training mode"):
        tiny_vfnet().train().detect([picture()])
