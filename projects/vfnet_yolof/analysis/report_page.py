"""The report as one HTML page that needs nothing else: no request leaves it, and it prints."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..data.faults import shown
from . import report_charts as charts
from .error_types import KINDS
from .report import ASPECT_EDGES, SIZE_EDGES, Report, class_rows, histograms
from .report_images import LEGEND, drawn_image

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 1200px; margin: 0 auto; padding: 12px 16px; }
h1 { font-size: 1.5em; margin: .3em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin: 1.6em 0 .4em; border-bottom: 2px solid #0072b2; }
p { margin: .4em 0; max-width: 75ch; overflow-wrap: anywhere; }
.note { border-left: 4px solid #d55e00; padding-left: 8px; }
.cards { display: flex; flex-wrap: wrap; gap: 8px; }
.card { border: 1px solid #bbb; border-radius: 6px; padding: 6px 14px; min-width: 70px; }
.card b { display: block; font-size: 1.5em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
          gap: 12px; align-items: start; }
figure { margin: 0; break-inside: avoid; }
figure img { width: 100%; max-width: 640px; height: auto; }
figcaption { font-size: .9em; color: #333; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: 2px 8px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
.swatch { display: inline-block; width: 1em; height: 1em; margin: 0 4px 0 12px; }
@media print { body { max-width: none; font-size: 11px; } h2 { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; } .scroll { overflow: visible; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def page(report: Report) -> str:
    """The report's page."""
    truth = report.truth
    return document(
        f"Detections on {shown(truth.name)}",
        [
            paragraph(
                f"{len(truth.image_ids)} images, {int(truth.positives.sum())} boxes of "
                f"{len(truth.class_names)} classes, {len(report.scored)} detections."
            ),
            *(paragraph(note, "note") for note in report.notes),
            cards({name: _figure(value, 1) for name, value in report.headline().items()}),
            cards({f"{name}, LVIS": _figure(value, 1) for name, value in report.lvis.items()}),
            _classes(report),
            _curves(report),
            _confusion(report),
            _errors(report),
            _calibration(report),
            _boxes(report),
            _images(report),
            heading("The run"),
            *(paragraph(f"{name}: {value}") for name, value in report.facts),
        ],
    )


def _classes(report: Report) -> str:
    rows = class_rows(report)
    rows.sort(key=lambda row: -1 if math.isnan(row["AP"]) else row["AP"])
    cells = []
    for row in rows:
        aps = [_figure(row[key], 1) for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
        rest = [_figure(row[key], 2) for key in ("threshold", "F1", "precision", "recall")]
        cells.append([shown(row["class"]), row["boxes"], row["detections"], *aps, *rest])
    columns = ["class", "boxes", "detections", "AP", "AP50", "AP75", "small", "medium", "large"]
    columns += ["threshold", "F1", "precision", "recall"]
    return "\n".join(
        [
            heading("Classes, the weakest first"),
            paragraph(
                "AP in per cent as COCO defines it; small is below 32² px, large above 96² px. The "
                f"threshold is the score from which F1 is highest (at IoU {report.options.iou:g}); "
                "vfnet-yolof predict takes it with --thresholds thresholds.json."
            ),
            table(columns, cells),
        ]
    )


def _shown_classes(report: Report) -> list[int]:
    """Those with the most boxes, in the order of the classes."""
    most = np.argsort(-report.truth.positives, kind="stable")[: charts.SHOWN_CLASSES]
    return sorted(most.tolist())


def _curves(report: Report) -> str:
    names, chosen = report.truth.class_names, _shown_classes(report)
    row = int(np.isclose(report.matches.ious[0], np.linspace(0.5, 0.95, 10)).argmax())
    precision = report.precision[row, :, :, 0]
    measured = precision[:, precision[0] > -1]
    of_classes = {shown(names[k]): precision[:, k] for k in chosen if report.truth.positives[k]}
    f1 = {"all together": report.curves[-1]} | {shown(names[k]): report.curves[k] for k in chosen}
    best = report.curves[-1].best
    said = (
        "No detection is a hit."
        if best is None
        else (
            f"With one threshold for all classes F1 is highest at a score of {best[0]:.2f}: F1 "
            f"{best[1]:.2f}, precision {best[2]:.2f}, recall {best[3]:.2f}."
        )
    )
    if len(names) > len(chosen):
        said += f" Drawn are the {len(chosen)} classes with the most boxes; report.json has all."
    return "\n".join(
        [
            heading(f"Precision, recall and F1 at IoU {report.options.iou:g}"),
            paragraph(said),
            figures(
                [
                    (
                        charts.precision_recall_chart(
                            {"mean of classes": measured.mean(axis=1)} | of_classes
                        ),
                        "Precision at each recall, as COCO interpolates it.",
                    ),
                    (charts.f1_chart(f1), "F1 of detections with at least that score."),
                ]
            ),
        ]
    )


def _confusion(report: Report) -> str:
    confusion, names = report.outcome.confusion, [shown(x) for x in report.truth.class_names]
    chosen = report.options.score
    scores = "its class's threshold of the table" if chosen is None else f"{chosen:g}"
    drawn = charts.confusion_chart(confusion, names)
    mixed = confusion.copy()
    np.fill_diagonal(mixed, 0)
    k = len(names)
    mixed[k], mixed[:, k] = 0, 0
    order = np.argsort(-mixed, axis=None, kind="stable")[:10]
    rows = [
        [
            f"{names[i]} as {names[j]}",
            int(mixed[i, j]),
            f"{100 * mixed[i, j] / confusion[i].sum():.1f} %",
        ]
        for i, j in zip(*np.unravel_index(order, mixed.shape), strict=True)
        if mixed[i, j]
    ]
    parts = [
        heading("Which classes are taken for which"),
        paragraph(
            f"Detections with a score of at least {scores}, hits at IoU {report.options.iou:g}. "
            "Boxes left over are then matched with detections of other classes; what remains is "
            "missed, or background."
        ),
    ]
    if drawn is not None:
        parts.append(figures([(drawn, "Counts; the shade is the share of the row.")]))
    if rows:
        parts.append(table(["taken for another", "boxes", "of the class"], rows))
    return "\n".join(parts)


def _errors(report: Report) -> str:
    errors = report.errors
    meaning = {
        "Cls": "right place, wrong class",
        "Loc": "right class, IoU from 0.1 to 0.5",
        "Both": "wrong class and poor place",
        "Dupe": "a box that another detection has",
        "Bkg": "nothing there",
        "Miss": "box not found, and no Loc or Cls detection on it",
    }
    rows = [[f"{x}: {meaning[x]}", errors.counts[x], _figure(errors.lost[x], 2)] for x in KINDS]
    rows += [
        ["FP: all that are no hits", "", _figure(errors.lost["FP"], 2)],
        ["FN: all boxes not found", "", _figure(errors.lost["FN"], 2)],
    ]
    return "\n".join(
        [
            heading("What the mistakes are, and what each kind costs"),
            paragraph(
                f"TIDE's types at IoU 0.5, where AP is {_figure(errors.ap, 1)}. A kind costs the "
                "AP that would be gained were it alone put right; the costs do not add up."
            ),
            figures(
                [
                    (charts.error_shares_chart(errors.lost), "Shares in the AP lost."),
                    (charts.error_costs_chart(errors.lost), "AP lost by kind of mistake."),
                ]
            ),
            table(["", "count", "AP lost"], rows),
        ]
    )


def _calibration(report: Report) -> str:
    found = report.calibration
    return "\n".join(
        [
            heading("What the scores are worth"),
            paragraph(
                f"Expected calibration error {found.precision_error:.3f} against precision (at "
                f"IoU {report.options.iou:g}) and {found.iou_error:.3f} against the IoU with the "
                "box of the class, which VFNet and GFL train their scores to be. Rank correlation "
                f"of score and IoU: {_figure(found.rank_correlation, 2)}. All "
                f"{int(found.counts.sum())} detections that no crowd excuses."
            ),
            figures(
                [(charts.calibration_chart(found), "On the dotted line scores keep their word.")]
            ),
        ]
    )


def _boxes(report: Report) -> str:
    counts = histograms(report)
    size = charts.histogram_chart(counts["size"], SIZE_EDGES, "root of the area (px)", (32, 96))
    aspect = charts.histogram_chart(counts["aspect"], ASPECT_EDGES, "width / height", (1,))
    return "\n".join(
        [
            heading("Sizes and shapes"),
            figures(
                [
                    (size, "Sizes; dotted: COCO's limits of small and large."),
                    (aspect, "Aspect ratios."),
                ]
            ),
        ]
    )


def _images(report: Report) -> str:
    parts = [heading("The images with the most mistakes")]
    worst = report.worst().tolist()
    if not worst:
        return "\n".join([*parts, paragraph("None is drawn.")])
    parts.append(legend())
    drawn, failed = [], []
    for image in worst:
        counts = report.counts
        files, ids = report.truth.files, report.truth.image_ids
        name = os.path.basename(files[image]) if files else f"image {ids[image]}"
        caption = (
            f"{shown(name)}: {counts.hits[image]} of {counts.boxes[image]} boxes found, "
            f"{counts.false[image]} wrong detections"
        )
        try:
            drawn.append((drawn_image(report, image), caption))
        except (OSError, ValueError) as error:
            failed.append(paragraph(f"{caption}. Not drawn: {error}"))
    return "\n".join([*parts, figures(drawn), *failed])


def legend() -> str:
    """The colours of drawn images."""
    swatches = "".join(
        f'<span class="swatch" style="background:rgb{color}"></span>{name}'
        for name, color in LEGEND.items()
    )
    return f"<p>{swatches}</p>"


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def cards(values: Mapping[str, str]) -> str:
    """Large figures in a row."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b>{escape(name)}</div>'
        for name, value in values.items()
    )
    return f'<div class="cards">{inner}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls where it is wider than the page."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def figures(images_and_captions: Iterable[tuple[bytes, str]]) -> str:
    """SVG charts or JPEG images beside each other, as far as there is room."""
    inner = "".join(
        f'<figure><img alt="{escape(caption)}" src="{_address(image)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in images_and_captions
    )
    return f'<div class="charts">{inner}</div>'


def _address(image: bytes) -> str:
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _figure(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
