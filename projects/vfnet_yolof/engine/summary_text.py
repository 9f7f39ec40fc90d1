"""The facts of a summary in words: a page of Markdown, and a few lines for the console."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from .examples import SCORE_THRESHOLD

Facts = Mapping[str, Any]

_NEXT = {
    "predict": "Detect in images",
    "evaluate": "Evaluate again",
    "continue": "Train on",
}


def as_markdown(facts: Facts) -> str:
    """The whole summary."""
    images = [f"![{name}]({name})" for name in facts["curves"]]
    if facts.get("validation_images"):
        images.append(
            f"`validation/` has {facts['validation_images']} validation images: the detections of "
            f"a score of {SCORE_THRESHOLD} or more beside the ground truth."
        )
    parts = [
        f"# {facts['run']}",
        _table(_rows(facts)),
        *images,
        "## Next",
        *(f"{title}:\n\n    {command}" for title, command in _next(facts)),
        _classes(facts),
        "## Versions",
        "\n".join(f"- {line}" for line in facts["versions"]),
    ]
    return "\n\n".join(parts) + "\n"


def on_console(facts: Facts) -> str:
    """A dozen lines."""
    rows = [(name, text) for name, text in _rows(facts) if name not in ("config", "ended")]
    width = max(len(name) for name, _ in rows) + 2
    files = ["summary.md", *facts["curves"]]
    if facts.get("validation_images"):
        files.append(f"validation/ ({facts['validation_images']} drawn images)")
    lines = [
        f"Run {facts['run']}: {facts['ended']}",
        *(f"  {name:<{width}}{text.replace('`', '')}" for name, text in rows),
        f"  {'files':<{width}}{', '.join(files)}",
        *(f"  {title}: {command}" for title, command in _next(facts)),
    ]
    return "\n".join(lines)


def _next(facts: Facts) -> list[tuple[str, str]]:
    commands = facts["commands"]
    return [(title, commands[name]) for name, title in _NEXT.items() if name in commands]


def _rows(facts: Facts) -> list[tuple[str, str]]:
    """What the table at the top says; names and texts."""
    rows = [("config", facts["config"]), ("ended", facts["ended"])]
    length = f"{facts['iterations']} of {facts['max_iter']}"
    if facts["epochs"] is not None:
        length += f" ({facts['epochs']:.4g} epochs)"
    rows.append(("iterations", length))
    if facts["best"] is not None:
        best = facts["best"]
        rows.append(("best", f"{_result(best, facts['metric'])}: `{best['checkpoint']}`"))
    if facts["last"] is not None:
        rows.append(("last", _result(facts["last"], facts["metric"])))
    if facts["averaged"]:
        average = facts["averaged"]
        rows.append(
            ("averaged", f"{facts['metric']} {average['value']:.2f}: `{average['checkpoint']}`")
        )
    if facts["no_ap"]:
        rows.append(("AP", facts["no_ap"]))
    if facts["failed_evaluations"]:
        rows.append(("evaluation", f"failed at the end: {facts['failed_evaluations']}"))
    return [*rows, ("time", _time(facts["speed"])), ("model", _model(facts)), *_data(facts)]


def _result(found: Facts, metric: str) -> str:
    shown = [(metric, found["value"]), ("AP50", found["AP50"])]
    texts = [
        f"{name.removeprefix('bbox/')} {value:{'.2f' if 'AP' in name else '.4g'}}"
        for name, value in shown
        if value is not None
    ]
    epoch = f", epoch {found['epoch']:.4g}" if found["epoch"] is not None else ""
    return f"{', '.join(texts) or 'unknown'} after iteration {found['iteration']}{epoch}"


def _time(speed: Facts) -> str:
    session = datetime.timedelta(seconds=round(speed["session_seconds"]))
    text = f"{session} with evaluations"
    if speed["first_iteration_of_session"]:
        text += f" since iteration {speed['first_iteration_of_session']}"
    if speed["seconds_per_iteration"] is not None:
        text += f"; {speed['seconds_per_iteration']:.3g} s per iteration"
    if speed["images_per_second"] is not None:
        text += f", {speed['images_per_second']:.3g} images/s"
    text += f" on {speed['device']}"
    if speed["peak_memory_mib"] is not None:
        owner = "of this process" if speed["device"] == "CPU" else "of the GPU"
        text += f"; peak memory {owner} {speed['peak_memory_mib']:.0f} MiB"
    return text


def _model(facts: Facts) -> str:
    model = facts["model"]
    averages = f"; evaluated: {model['weights']}" if model["weights"] else ""
    return f"{model['parameters']:,} parameters{averages}"


def _data(facts: Facts) -> list[tuple[str, str]]:
    data = facts["data"]
    rows = []
    for split, title in (("train", "trained on"), ("val", "validated on")):
        if split in data:
            found = data[split]
            text = f"{found['images']} images, {found['boxes']} boxes"
            names = ", ".join(found["names"])
            rows.append((title, f"{text} ({names})" if names else text))
    if data.get("classes"):
        rows.append(("classes", _some(data["classes"])))
    return rows


def _some(names: list[str], count: int = 8) -> str:
    rest = f", ... ({len(names)} in all)" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def _classes(facts: Facts) -> str:
    """The table of classes."""
    rows = facts["per_class"]
    if not rows:
        return "## Classes\n\nThe data set names none."
    lines = [
        "## Classes",
        "",
        "| class | train boxes | val boxes | AP | AP50 |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        counts = [_or_dash(row[key]) for key in ("train_boxes", "val_boxes")]
        figures = [_or_dash(row[key], ".2f") for key in ("AP", "AP50")]
        lines.append(f"| {_cell(row['class'])} | {' | '.join(counts + figures)} |")
    which = facts["best"] or facts["last"]
    if which is not None and any(row["AP"] is not None for row in rows):
        lines += ["", f"AP of the evaluation after iteration {which['iteration']}."]
    return "\n".join(lines)


def _or_dash(value: Any, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {n} | {_cell(t)} |" for n, t in rows)])


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
