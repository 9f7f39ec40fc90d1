"""``configs/MODEL_ZOO.md`` and ``configs/PUBLISHED.md``: what is published, what models cost.

The first has a line for each config that is meant to reach a published row, the second the tables
of the papers row by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from ..config.packaged import config_dir
from ..config.read import read
from ..model_zoo.published import PublishedRow, all_rows, rows, tables
from ..model_zoo.table import ROWS, Row
from .compare import write_text
from .cost_report import analyze

SIZE = (800, 1344)
FILE, PRINTED_FILE = "MODEL_ZOO.md", "PUBLISHED.md"
GROUPS = {
    "VFNet and VFNet-X": "vfnet/",
    "ATSS, the baseline of VFNet's tables 4 and 5": "atss/",
    "GFL": "gfl/",
    "YOLOF": "yolof/",
    "FoveaBox": "foveabox/",
    "RepPoints": "reppoints/",
    "SSD512": "ssd/",
    "RetinaNet, as MMDetection trains it": "baselines/",
    "VFNet's table 5, of which its authors publish weights": "ablations/",
}

# Reference implementations at 800 x 1344: millions of parameters, 10^9 multiply-adds.
REFERENCE: dict[str, tuple[float, float]] = {
    "vfnet/vfnet_r50_fpn_ms_2x": (32.89, 228.1),
    "vfnet/vfnet_r50_dcn_fpn_ms_2x": (33.89, 234.9),
    "vfnet/vfnet_r101_fpn_ms_2x": (51.88, 307.6),
    "vfnet/vfnet_r101_dcn_fpn_ms_2x": (53.94, 318.9),
    "vfnet/vfnet_x101_32x4d_fpn_ms_2x": (51.51, 311.3),
    "vfnet/vfnet_x101_32x4d_dcn_fpn_ms_2x": (55.49, 331.0),
    "vfnet/vfnet_x101_64x4d_fpn_ms_2x": (90.79, 471.8),
    "vfnet/vfnet_x101_64x4d_dcn_fpn_ms_2x": (98.63, 508.5),
    "vfnet/vfnet_r2_101_fpn_ms_2x": (52.56, 318.5),
    "vfnet/vfnet_r2_101_dcn_fpn_ms_2x": (55.04, 331.6),
    "gfl/gfl_r50_fpn_ms_2x": (32.44, 218.0),
    "gfl/gfl_r101_fpn_ms_2x": (51.43, 297.5),
    "gfl/gfl_r101_dcnv1_fpn_ms_2x": (52.72, 303.2),
    "gfl/gfl_x101_32x4d_fpn_ms_2x": (51.06, 301.1),
    "yolof/yolof_r50_c5_1x": (44.11, 104.3),
    "yolof/yolof_r50_dc5_1x": (44.50, 218.0),
    "baselines/retinanet_r50_fpn_1x": (37.92, 245.5),
    "baselines/retinanet_mmdet_r50_fpn_1x": (37.97, 250.5),
    "atss/atss_r50_fpn_1x": (32.30, 214.7),
    "foveabox/foveabox_r50_fpn_1x": (36.42, 215.8),
    "reppoints/reppoints_r50_fpn_1x": (36.85, 225.3),
    "ablations/vfnet_t3_vfl": (32.29, 214.7),
}
# What has to be known of a group's figures, below its title.
REMARKS = {
    "atss/": """\
The published AP is that of other recipes. ATSS's authors start from MSRA's weights (B, G, R) and
warm up at a constant rate; these configs start from torchvision's weights (R, G, B) and warm up
linearly.
""",
}
IN_ZOO = tuple(dict.fromkeys((*ROWS, *REFERENCE)))
PRINTED = tuple(dict.fromkeys(row.config for row in all_rows() if row.config is not None))
DESCRIBED = tuple(dict.fromkeys((*IN_ZOO, *PRINTED)))
PAPERS = {
    "vfnet": "VarifocalNet",
    "gfl": "Generalized Focal Loss",
    "yolof": "YOLOF",
    "repositories": "Lists of models in repositories",
}
# What trains a model and has no part in its cost.
_TRAINING = re.compile(r"\w*(loss|assigner|weight|quality)|beta|min_positives|min_quality_sum")

_HEAD = f"""# Model zoo

Made by `python tools/make_model_zoo.py` from the configs; do not edit. How to get, convert and
verify weights: [docs/weights.md](../docs/weights.md). The tables of the papers row by row, with
AP at each threshold and size, ablations and quoted competitors: [PUBLISHED.md](PUBLISHED.md).

AP is as published, on val2017 and on test-dev, in percent; none of it was measured here. Where the
weights come from another training, their own AP on val2017 stands in brackets. Parameters are in
millions; G are 10^9 multiply-adds of convolutions and products (deformable ones included) for one
image of {SIZE[0]} x {SIZE[1]}. Weights without a link are fetched with a browser, from the page
named.

"images" says how those weights were trained, and so how they have to be used: interpolation of
the resizing, multiple of px that height and width are padded to, order of the channels. A row's
config has it, but for the weights below.

{{others}}
"""

_PRINTED_HEAD = f"""# Published results, row by row

Made by `python tools/make_model_zoo.py`; do not edit. AP is as printed, in percent, on val2017
("val") or test-dev; nothing of it was measured here. "quoted" marks others' work that the paper
cites. FPS are the authors', on the GPU named, GFLOPs their count: one for a multiply-add, of the
first 100 images of val2017. M, millions of parameters, and G, 10^9 multiply-adds
at {SIZE[0]} x {SIZE[1]}, are those of the config here, counted as in the [model zoo](MODEL_ZOO.md).
How to get weights is in [docs/weights.md](../docs/weights.md). Not listed: YOLOF's table 6, of
training memory and time, which has no AP.
"""

_COST = """## Size and cost beside the reference implementations

The reference figures were counted the same way in the projects that define the models.
"""


class Figures(NamedTuple):
    """Of one model, as the document has them: millions and 10^9, rounded."""

    parameters: str
    multiply_adds: str


def measure(rows: Sequence[str] = DESCRIBED) -> dict[str, Figures]:
    """Figures of rows; those with the same model are counted once."""
    known: dict[str, Figures] = {}
    found = {}
    for row in rows:
        model = _counted(read(f"{row}.py").cfg.model)
        if model not in known:
            cost = analyze(f"{row}.py", SIZE)
            known[model] = Figures(
                f"{cost.parameters / 1e6:.2f}", f"{cost.multiply_adds / 1e9:.1f}"
            )
        found[row] = known[model]
    return found


def _counted(model: DictConfig) -> str:
    """A detector's config without what its training alone has."""
    kept = {key: node for key, node in model.items() if not _TRAINING.fullmatch(str(key))}
    return OmegaConf.to_yaml(OmegaConf.create(kept, flags={"allow_objects": True}))


def read_figures(text: str) -> dict[str, Figures]:
    """The figures that a document has, by row."""
    listed, _, costs = text.partition(_COST)
    found = re.findall(
        r"^\| ([\w/]+)\.py +\| +[\d.]+ +\| +([\d.]+) +\| +[\d.]+ +\| +([\d.]+)", costs, re.MULTILINE
    )
    found += re.findall(r"\| \[([\w/]+)\]\(\1\.py\) +\| +([\d.]+) +\| +([\d.]+) +\|", listed)
    return {row: Figures(parameters, adds) for row, parameters, adds in found}


def document(figures: Mapping[str, Figures]) -> str:
    """The text of the zoo, for the figures of everything in :data:`IN_ZOO`."""
    parts = [_HEAD.format(others=_others())]
    for title, prefix in GROUPS.items():
        lines = [_line(name, ROWS[name], figures[name]) for name in ROWS if name.startswith(prefix)]
        headers = ["config", "M", "G", "AP val", "AP test-dev", "images", "weights", "SHA-256"]
        remark = f"{REMARKS[prefix]}\n" if prefix in REMARKS else ""
        parts.append(f"## {title}\n\n{remark}{_table(lines, headers)}\n")
    lines = [
        [
            f"{name}.py",
            f"{m:.2f}",
            figures[name].parameters,
            f"{g:.1f}",
            figures[name].multiply_adds,
        ]
        for name, (m, g) in REFERENCE.items()
    ]
    headers = ["config", "M, reference", "M", "G, reference", "G"]
    parts.append(f"{_COST}\n{_table(lines, headers)}\n")
    return "\n".join(parts)


def printed_document(figures: Mapping[str, Figures]) -> str:
    """The papers' tables, for the figures of everything in :data:`PRINTED`."""
    parts = [_PRINTED_HEAD]
    for paper, title in PAPERS.items():
        parts.append(f"## {title}\n")
        for table in tables()[paper]:
            name = table if paper == "repositories" else _title(table)
            parts.append(f"### {name}\n\n{_printed_table(rows(paper, table), figures)}\n")
    return "\n".join(parts)


def _title(table: str) -> str:
    if table.startswith("readme-"):
        return f"README, table {table.removeprefix('readme-')}"
    if table.startswith("figure"):
        return f"Figure {table.removeprefix('figure')}"
    return f"Table {table}"


def _printed_table(printed: Sequence[PublishedRow], figures: Mapping[str, Figures]) -> str:
    """One table; columns that none of its rows fills are left out."""
    columns: dict[str, list[str]] = {
        "row": [row.label for row in printed],
        "config": [f"[{row.config}]({row.config}.py)" if row.config else "" for row in printed],
        "M": [figures[row.config].parameters if row.config else "" for row in printed],
        "G": [figures[row.config].multiply_adds if row.config else "" for row in printed],
        "on": [row.evaluated_on for row in printed],
    }
    for name in ("AP", "AP50", "AP75", "APS", "APM", "APL"):
        columns[name] = [_number(getattr(row, name.lower())) for row in printed]
    columns |= {
        "FPS": ["" if row.fps is None else f"{row.fps:g}" for row in printed],
        "GFLOPs": ["" if row.gflops is None else f"{row.gflops:g}" for row in printed],
        "GPU": [row.gpu for row in printed],
        "weights": [_weights(row) for row in printed],
        "remark": [_remark(row) for row in printed],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    return _table(list(zip(*filled.values(), strict=True)), list(filled))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _weights(row: PublishedRow) -> str:
    """The file of the row's first config that has one, and the authors' page for the row."""
    found = []
    known = (ROWS[name].weights for name in row.configs if name in ROWS)
    weights = next((each for each in known if each is not None), None)
    if weights is not None:
        found.append(f"[{weights.file}]({(*weights.addresses, weights.page)[0]})")
    if row.weights and (weights is None or row.weights != weights.page):
        found.append(f"[authors' file]({row.weights})")
    return ", ".join(found)


def _remark(row: PublishedRow) -> str:
    also = f"also {', '.join(f'{name}.py' for name in row.also)}" if row.also else ""
    return "; ".join(filter(None, ("quoted" if row.quoted else "", row.note, also)))


def _line(name: str, row: Row, figures: Figures) -> list[str]:
    val = _number(row.val)
    if row.weights is not None and row.weights.val is not None:
        val += f" [{row.weights.val:.1f}]"
    weights, digest = "", ""
    images = "" if row.weights is None else str(row.weights.pipeline)
    if row.weights is not None and row.weights.addresses:
        weights, digest = f"[{row.weights.file}]({row.weights.addresses[0]})", row.weights.sha256
    elif row.weights is not None:
        weights = f"{row.weights.file} from [this page]({row.weights.page})"
    return [f"[{name}]({name}.py)", *figures, val, _number(row.test_dev), images, weights, digest]


def _others() -> str:
    """Weights that want another config than their row's, with the changes."""
    parts = []
    for name, row in ROWS.items():
        if row.weights is not None and row.weights.overrides:
            lines = "\n".join(f"    {override}" for override in row.weights.overrides)
            parts.append(f"`{row.weights.file}` with `{name}.py`:\n\n{lines}")
    return "\n\n".join(parts)


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, "pipe", disable_numparse=True)


def pages(figures: Mapping[str, Figures]) -> dict[str, str]:
    """Both documents by the names of their files, for the figures of :data:`DESCRIBED`."""
    return {FILE: document(figures), PRINTED_FILE: printed_document(figures)}


def write_page() -> None:
    """Write both documents anew; takes a minute or two."""
    for name, text in pages(measure()).items():
        write_text(config_dir() / name, text)


def outdated() -> list[str]:
    """Names of the documents that are not what :func:`write_page` would write."""
    return [
        name
        for name, text in pages(measure()).items()
        if not (config_dir() / name).is_file()
        or (config_dir() / name).read_text(encoding="utf-8") != text
    ]
