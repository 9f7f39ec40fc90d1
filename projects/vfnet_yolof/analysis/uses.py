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

    A loss whose targets or weights are a measured quality has an arrow from what is measured, too:
    in a joint representation from the box to the loss of the scores. A quality branch has a loss of
    its own, and only in tests meets the scores.

    Args:
        predictions: of :func:`predictions_of`.

    Returns:
        Blocks of the parts "training" and "testing", each after its sources. None for a detector
        that is not this project's, whose losses are not known.
    """
    if not hasattr(model, "postprocessor"):
        return {}
    box = next((name for name in _BOXES if name in predictions), None)
    blocks = {}
    for name in predictions:
        lines, measured = _loss(model, name)
        if name == box and (shape := _side_loss(model)):
            lines.append(shape)
        if lines:
            own = (box if box and x in _BOXES else x for x in measured)
            sources = [name, *(x for x in own if x in predictions)]
            blocks[f"training {name}"] = _block(name, TRAINING, lines, sources)
    scores = "logits"
    if "quality_logits" in predictions:
        scores = "testing product"
        blocks[scores] = _block(scores, TESTING, ["×"], ["logits", "quality_logits"])
    lines = ["in tests", _kind(model.postprocessor, "nms")]
    blocks["testing"] = _block("testing", TESTING, lines, [x for x in (scores, box) if x])
    return blocks


def _loss(model: nn.Module, name: str) -> tuple[list[str], tuple[str, ...]]:
    """What the loss of one kind of predictions is called, and which predictions it measures."""
    if name == "logits":
        loss = getattr(model, "cls_loss", None)
        lines = [_kind(model, "cls_loss")]
        if loss is None or not getattr(loss, "uses_quality", True):
            return [x for x in lines if x], ()
        # Detectors without a choice hand over the IoU of the predicted box.
        role = getattr(loss, "quality_role", "quality")
        lines.append(f"{role}: {_measure(model, 'cls_quality') or 'IoU'}")
        return lines, _reads(model, "cls_quality")
    if name == "quality_logits":
        return ["cross entropy", f"target: {_measure(model, 'quality')}"], _reads(model, "quality")
    lines = [_kind(model, "box_loss") or str(getattr(model, "box_loss_name", ""))]
    if weight := _measure(model, "box_quality"):
        return [*lines, f"weight: {weight}"], _reads(model, "box_quality")
    return [x for x in lines if x], ()


def _measure(model: nn.Module, name: str) -> str:
    return _kind(model, name).removesuffix("Target")


def _reads(model: nn.Module, name: str) -> tuple[str, ...]:
    """What a measure looks at; of one that does not say so, and without a choice, the box."""
    return tuple(getattr(getattr(model, name, None), "reads", ("sides",)))


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


def _side_loss(model: nn.Module) -> str:
    """The loss of a distribution's shape, where it has a weight."""
    name = getattr(getattr(model.head, "representation", None), "loss_name", None)
    weight = getattr(model, "dfl_weight", 0.0)
    return f"with {name.removeprefix('loss_').upper()}" if name and weight else ""


def _kind(model: Any, name: str) -> str:
    part = getattr(model, name, None)
    return "" if part is None else type(part).__name__
