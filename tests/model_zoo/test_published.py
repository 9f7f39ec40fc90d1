"""The package's table of published results beside a second copy, made from the papers' own text.

``tests/data/printed_results.csv`` has the cells of each table in the printed order, with page where
the text gives it. README's tables are "readme-1" and "readme-2" of "vfnet".
"""

import csv
import re
from pathlib import Path

import pytest
from vfnet_yolof.analysis.model_zoo_page import PRINTED_FILE
from vfnet_yolof.config.packaged import config_dir, config_names
from vfnet_yolof.model_zoo.published import all_rows, published_ap, rows, tables
from vfnet_yolof.model_zoo.table import ROWS

FIGURES = ("AP", "AP50", "AP75", "APS", "APM", "APL", "FPS", "GFLOPs")
PRINTED: dict[tuple[str, str], list[dict[str, str]]] = {}
with (Path(__file__).parents[1] / "data" / "printed_results.csv").open(encoding="utf-8") as _file:
    for _line in csv.DictReader(_file):
        PRINTED.setdefault((_line["paper"], _line["table"]), []).append(_line)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


def test_no_table_is_missing() -> None:
    known = {(paper, table) for paper, its in tables().items() for table in its}
    without_numbers = {("yolof", "figure1"), ("yolof", "figure3")}
    repositories = {key for key in known if key[0] == "repositories"}
    assert known - without_numbers - repositories == set(PRINTED)
    assert sum(map(len, PRINTED.values())) == 261


@pytest.mark.parametrize(("paper", "table"), PRINTED)
def test_figures_are_those_printed(paper: str, table: str) -> None:
    ours, printed = rows(paper, table), PRINTED[paper, table]
    assert len(ours) == len(printed)
    for row, line in zip(ours, printed, strict=True):
        found = {name: getattr(row, name.lower()) for name in FIGURES}
        assert found == {n: float(line[n]) if line[n] else None for n in FIGURES}, row.label
        assert row.evaluated_on == line["on"]
        assert numbers(line["row"]) <= numbers(row.label)


@pytest.mark.parametrize(("paper", "table"), PRINTED)
def test_printed_rows_are_on_the_page(paper: str, table: str) -> None:
    text = (config_dir() / PRINTED_FILE).read_text(encoding="utf-8")
    papers = {"vfnet": "VarifocalNet", "gfl": "Generalized Focal Loss", "yolof": "YOLOF"}
    name = table.replace("readme-", "README, table ") if "readme" in table else f"Table {table}"
    section = text.partition(f"\n## {papers[paper]}\n")[2].partition("\n## ")[0]
    section = section.partition(f"\n### {name}\n")[2].partition("\n###")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    on_page = [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]
    assert len(on_page) == len(PRINTED[paper, table])
    for line, printed in zip(on_page, PRINTED[paper, table], strict=True):
        for figure in FIGURES:
            shown = line.get(figure, "")
            assert bool(shown) == bool(printed[figure])
            assert not shown or float(shown) == float(printed[figure])


def test_configs_exist_and_have_one_published_ap() -> None:
    found: dict[tuple[str, str], set[float | None]] = {}
    names = {name.removesuffix(".py") for name in config_names()}
    for row in all_rows():
        assert set(row.configs) <= names
        assert row.quoted or row.config or row.note, row
        for config in row.configs:
            found.setdefault((config, row.evaluated_on), set()).add(row.ap)
    assert {key: ap for key, ap in found.items() if len(ap) > 1} == {}


def test_ablations_and_baselines_have_their_row() -> None:
    """But for those that no paper has."""
    own = {"ablations/vfnet_fcos_regions", "baselines/fcos_small"}
    names = {name.removesuffix(".py") for name in config_names()}
    wanted = {name for name in names if name.startswith(("ablations/", "baselines/"))}
    assert wanted - {config for row in all_rows() for config in row.configs} == own


def test_the_zoo_takes_its_figures_from_here() -> None:
    for name, row in ROWS.items():
        assert (row.val, row.test_dev) == (
            published_ap(name, "val"),
            published_ap(name, "test-dev"),
        )
    assert ROWS["vfnet/vfnet_r50_fpn_1x"][:2] == (41.6, 41.6)
    assert ROWS["gfl/gfocal_r50_fpn_1x"][:2] == (40.2, 40.3)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(KeyError, match=r"No table '9' of 'gfl' is known; .*yolof: 1, 2, 3"):
        rows("gfl", "9")
