"""``configs/MODEL_ZOO.md``: what is published for each row, and what its model costs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from omegaconf import OmegaConf
from tabulate import tabulate

from ..config.packaged import config_dir
from ..config.read import read
from ..model_zoo.table import ROWS, Row
from .compare import write_text
from .cost_report import analyze

SIZE = (800, 1344)
FILE = "MODEL_ZOO.md"
GROUPS = {
    "VFNet and VFNet-X": "vfnet/",
    "ATSS, the baseline of VFNet's tables 4 and 5": "atss/",
    "GFL": "gfl/",
    "YOLOF": "yolof/",
    "FoveaBox": "foveabox/",
    "RepPoints": "reppoints/",
    "SSD512": "ssd/",
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
DESCRIBED = tuple(dict.fromkeys((*ROWS, *REFERENCE)))

_HEAD = f"""# Model zoo

Made by `python tools/make_model_zoo.py` from the configs; do not edit. How to get, convert and
verify weights: [docs/weights.md](../docs/weights.md).

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
        model = OmegaConf.to_yaml(read(f"{row}.py").cfg.model)
        if model not in known:
            cost = analyze(f"{row}.py", SIZE)
            known[model] = Figures(
                f"{cost.parameters / 1e6:.2f}", f"{cost.multiply_adds / 1e9:.1f}"
            )
        found[row] = known[model]
    return found


def read_figures(text: str) -> dict[str, Figures]:
    """The figures that a document has, by row."""
    rows, _, costs = text.partition(_COST)
    found = re.findall(
        r"^\| ([\w/]+)\.py +\| +[\d.]+ +\| +([\d.]+) +\| +[\d.]+ +\| +([\d.]+)", costs, re.MULTILINE
    )
    found += re.findall(
        r"^\| \[([\w/]+)\]\([^)]*\) +\| +([\d.]+) +\| +([\d.]+) +\|", rows, re.MULTILINE
    )
    return {row: Figures(parameters, adds) for row, parameters, adds in found}


def document(figures: Mapping[str, Figures]) -> str:
    """The whole text, for the figures of everything in :data:`DESCRIBED`."""
    parts = [_HEAD.format(others=_others())]
    for title, prefix in GROUPS.items():
        rows = [_line(name, ROWS[name], figures[name]) for name in ROWS if name.startswith(prefix)]
        headers = ["config", "M", "G", "AP val", "AP test-dev", "images", "weights", "SHA-256"]
        remark = f"{REMARKS[prefix]}\n" if prefix in REMARKS else ""
        parts.append(f"## {title}\n\n{remark}{_table(rows, headers)}\n")
    rows = [
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
    parts.append(f"{_COST}\n{_table(rows, headers)}\n")
    return "\n".join(parts)


def _line(name: str, row: Row, figures: Figures) -> list[str]:
    val = "" if row.val is None else f"{row.val:.1f}"
    if row.weights is not None and row.weights.val is not None:
        val += f" [{row.weights.val:.1f}]"
    test_dev = "" if row.test_dev is None else f"{row.test_dev:.1f}"
    weights, digest = "", ""
    images = "" if row.weights is None else str(row.weights.pipeline)
    if row.weights is not None and row.weights.addresses:
        weights, digest = f"[{row.weights.file}]({row.weights.addresses[0]})", row.weights.sha256
    elif row.weights is not None:
        weights = f"{row.weights.file} from [this page]({row.weights.page})"
    return [f"[{name}]({name}.py)", *figures, val, test_dev, images, weights, digest]


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


def write_page() -> None:
    """Write the document anew; takes about a minute."""
    write_text(config_dir() / FILE, document(measure()))


def is_current() -> bool:
    """Whether the document is what :func:`write_page` would write."""
    path = config_dir() / FILE
    return path.is_file() and path.read_text(encoding="utf-8") == document(measure())
