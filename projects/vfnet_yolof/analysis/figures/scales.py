"""Which scales of objects the receptive fields of a dilated encoder cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from ...config.options import ConfigError
from ...drawing.charts import MARKERS, bare, label_axes, new_figure
from ...drawing.curves import COLORS
from ...modeling.necks.dilated_encoder import DilatedBlock, DilatedEncoder
from ..subject import Subject
from . import Drawn, Options

_ROWS = ("projector alone", "blocks without shortcuts", "this encoder")


def scales(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 4 of YOLOF: the scales of objects, and those that the single feature covers.

    Above the scales of the test set's boxes as the network sees them (square root of the area,
    pixels after resizing), below the sizes of the encoder's receptive fields: (a) of its projector,
    (b) of the projector and all blocks one after the other, (c) of every path through the built
    encoder: with shortcuts each block is taken or left out. A size is that of the window of the
    backbone's feature, in cells, times the stride; what the backbone sees beyond its cells comes on
    top of each alike.

    The numbers have these sizes and, for (c), the number of ``paths`` of each, ``edges`` and
    ``counts`` of the boxes' histogram, and how large a share of the boxes is smaller than the
    least, between, and larger than the largest size of each row.

    Raises:
        ConfigError: the detector has no dilated encoder, or the test set no boxes.
    """
    (subject,) = subjects
    found = _boxes(subject)
    stride, projector, paths = receptive_fields(_encoder(subject))
    rows = ([projector], [max(projector, *paths)], [*paths])
    sizes = {name: [x * stride for x in cells] for name, cells in zip(_ROWS, rows, strict=True)}
    shares = {name: _shares(found, x) for name, x in sizes.items()}
    edges = np.geomspace(min(found.min(), stride) * 0.9, max(found.max(), *sizes[_ROWS[2]]) * 1.1)
    counts, _ = np.histogram(found, edges)
    figure = new_figure(7.2, 4.4)
    above, below = figure.subplots(2, 1, sharex=True)
    above.stairs(counts, edges, fill=True, color=COLORS[0], alpha=0.7)
    label_axes(above, "", "boxes")
    for row, (name, values) in enumerate(sizes.items()):
        style = {"color": COLORS[row + 1], "marker": MARKERS[row + 1], "linewidth": 1}
        below.plot(values, [-row] * len(values), **style)
        below.annotate(f"({'abc'[row]}) {name}", (edges[0], -row + 0.2), fontsize=8)
    below.set_xscale("log")
    below.set_ylim(-2.6, 0.8)
    bare(below)
    label_axes(below, "scale of boxes, size of receptive fields, px", "")
    below.set_yticks([])
    numbers = {
        "stride": stride,
        "sizes": sizes,
        "paths": [*paths.values()],
        "boxes": len(found),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "share": shares,
    }
    least, largest = min(sizes[_ROWS[2]]), max(sizes[_ROWS[2]])
    sentence = (
        f"{paths.total()} paths have receptive fields of {len(paths)} sizes from {least} to "
        f"{largest} px in the encoder; of {len(found)} boxes "
        f"{shares[_ROWS[2]]['smaller']:.0%} are smaller, {shares[_ROWS[2]]['between']:.0%} between "
        f"and {shares[_ROWS[2]]['larger']:.0%} larger."
    )
    return Drawn(figure, numbers, sentence)


def receptive_fields(encoder: DilatedEncoder) -> tuple[int, int, Counter[int]]:
    """Stride, px; the projector's receptive field, cells; how many paths have which, cells.

    A convolution of kernel k and dilation d widens the window by d (k - 1) cells.
    """
    (shape,) = encoder.output_shape().values()
    projector = 1 + _widening(encoder.lateral) + _widening(encoder.output)
    paths = Counter({projector: 1})
    for block in encoder.blocks:
        assert isinstance(block, DilatedBlock)
        wider = sum(_widening(conv) for conv in (block.conv1, block.conv2, block.conv3))
        taken = Counter({size + wider: count for size, count in paths.items()})
        paths = paths + taken if block.shortcut else taken
    return int(shape.stride or 1), projector, Counter(dict(sorted(paths.items())))


def _widening(conv: torch.nn.Conv2d) -> int:
    return int(conv.dilation[0]) * (int(conv.kernel_size[0]) - 1)


def _encoder(subject: Subject) -> DilatedEncoder:
    encoder = subject.model.backbone
    if not isinstance(encoder, DilatedEncoder):
        raise ConfigError(
            f"{subject.name} has no dilated encoder, which this figure is about; YOLOF has one."
        )
    return encoder


def _boxes(subject: Subject) -> np.ndarray:
    """(B,) the scales of all boxes of the test images, px of the network's input."""
    parts = [one["instances"].gt_boxes.area().sqrt() for (one,) in subject.batches()]
    found = torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)
    found = found[found > 0]
    if not len(found):
        raise ConfigError(f"The test set {subject.dataset} has no boxes that are looked at.")
    return found


def _shares(found: np.ndarray, sizes: Sequence[int]) -> dict[str, float]:
    smaller, larger = found < min(sizes), found > max(sizes)
    return {
        "smaller": float(smaller.mean()),
        "between": float((~smaller & ~larger).mean()),
        "larger": float(larger.mean()),
    }
