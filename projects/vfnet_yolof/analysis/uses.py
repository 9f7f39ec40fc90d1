"""What becomes of a head's predictions: the losses in training, scores and boxes in tests.

Of the built detector, for its diagram (as figures 1, 4 and 6 of GFL's paper show their variants).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from .architecture import Architecture, Block

OUTPUT, TRAINING, TESTING = "output", "training", "testing"

_MEANINGS = {
    "logits": "class scores",
    "sides": "box",
    "ltrb_init": "first box",
    "sides_init": "first box",
    "deltas": "box",
    "quality_logits": "quality",
}
_BOXES = ("sides", "deltas")  # that are detected


def predictions_of(model: nn.Module, graph: Architecture) -> dict[str, Block]:
    """What the head predicts and its form, by the name of the predictions."""
    forms = {
        "logits": _classes(model),
        "sides": _sides(model),
        "ltrb_init": "4 distances",
        "sides_init": _sides(model),
        "deltas": "4 numbers an anchor",
        "quality_logits": "1 number",
    }
    blocks = {}
    for name, sources, channels in graph.outputs:
        kept = (x for x in sources if x in graph.blocks)
        lines = [_MEANINGS.get(name, name), forms.get(name, f"{channels} channels")]
        blocks[name] = _block(name, OUTPUT, lines, kept)
    return blocks


def uses_of(model: nn.Module, predictions: Mapping[str, Block]) -> dict[str, Block]:
    """The losses that predictions learn from, and what tests do with them.

    A classification loss whose targets are the quality of the predicted box has an arrow from the
    box as well: the joint representation. A quality branch has a loss of its own, and only in tests
    meets the scores.

    Args:
        predictions: of :func:`predictions_of`.

    Returns:
        Blocks of the parts "training" and "testing", each after its sources.
    """
    losses = {
        "logits": [_kind(model, "cls_loss")],
        **dict.fromkeys(("sides", "deltas", "ltrb_init", "sides_init"), [_box_loss(model)]),
        "quality_logits": ["cross entropy", f"target: {_kind(model, 'quality')}"],
    }
    if "sides" in predictions:
        losses["sides"] = [*losses["sides"], _side_loss(model)]
    box = next((name for name in _BOXES if name in predictions), None)
    blocks = {}
    for name in predictions:
        lines = [x for x in losses.get(name, []) if x]
        sources = [name]
        if name == "logits" and box and getattr(model.cls_loss, "uses_quality", False):
            lines.append(f"target: {_class_quality(model)}")
            sources.append(box)
        if lines:
            blocks[f"training {name}"] = _block(name, TRAINING, lines, sources)
    scores = "logits"
    if "quality_logits" in predictions:
        scores = "testing product"
        blocks[scores] = _block(scores, TESTING, ["×"], ["logits", "quality_logits"])
    lines = ["in tests", _kind(model.postprocessor, "nms")]
    blocks["testing"] = _block("testing", TESTING, lines, [x for x in (scores, box) if x])
    return blocks


def _block(name: str, part: str, lines: list[str], sources: Iterable[str]) -> Block:
    return Block(name, part, lines, sources=dict.fromkeys(sources))


def _classes(model: nn.Module) -> str:
    anchors = getattr(model.head, "num_anchors", None)
    classes = f"{getattr(model, 'num_classes', 'of')} classes"
    return f"{anchors} anchors × {classes}" if isinstance(anchors, int) else classes


def _sides(model: nn.Module) -> str:
    representation = getattr(model.head, "representation", None)
    if representation is None:
        return "4 distances"
    channels = getattr(representation, "channels", 1)
    name = type(representation).__name__
    return f"4 × {channels} {name}" if channels > 1 else name


def _class_quality(model: nn.Module) -> str:
    """The measure that the scores of positives learn; the IoU where the detector has no choice."""
    return _kind(model, "cls_quality").removesuffix("Target") or "IoU"


def _box_loss(model: nn.Module) -> str:
    """Its name, and the measure that weights it, where there is one to choose."""
    name = _kind(model, "box_loss") or str(getattr(model, "box_loss_name", ""))
    return " × ".join(x for x in (name, _kind(model, "box_quality")) if x)


def _side_loss(model: nn.Module) -> str:
    """The loss of a distribution's shape, where it has a weight."""
    name = getattr(getattr(model.head, "representation", None), "loss_name", None)
    weight = getattr(model, "dfl_weight", 0.0)
    return f"with {name.removeprefix('loss_').upper()}" if name and weight else ""


def _kind(model: Any, name: str) -> str:
    part = getattr(model, name, None)
    return "" if part is None else type(part).__name__
