"""The zoo's pages and the docstrings of the configs say what the tables of rows say."""

import ast
import re

import pytest
from vfnet_yolof.analysis.model_zoo_page import (
    DESCRIBED,
    FILE,
    PRINTED,
    PRINTED_FILE,
    REFERENCE,
    measure,
    pages,
    read_figures,
)
from vfnet_yolof.config.packaged import config_dir, config_names
from vfnet_yolof.model_zoo.published import TEST_DEV, VAL, published_ap
from vfnet_yolof.model_zoo.table import ROWS


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Both pages, by name."""
    folder = config_dir()
    return {name: (folder / name).read_text(encoding="utf-8") for name in (FILE, PRINTED_FILE)}


@pytest.fixture(scope="module")
def text(texts: dict[str, str]) -> str:
    return texts[FILE]


def test_is_what_the_tool_makes_of_its_figures(texts: dict[str, str]) -> None:
    """Everything but the figures, which take a minute to count."""
    printed = read_figures(texts[PRINTED_FILE])
    figures = printed | read_figures(texts[FILE])
    assert set(figures) == set(DESCRIBED)
    assert figures | printed == figures
    assert pages(figures) == texts


@pytest.mark.parametrize("row", ["vfnet/vfnet_r50_dcn_fpn_ms_2x", "yolof/yolof_r50_dc5_1x"])
def test_some_figures_are_current(text: str, row: str) -> None:
    assert measure([row])[row] == read_figures(text)[row]


@pytest.mark.slow
def test_all_figures_are_current(texts: dict[str, str]) -> None:
    assert pages(measure()) == texts


@pytest.mark.parametrize("row", REFERENCE)
def test_figures_are_the_references(text: str, row: str) -> None:
    ours = read_figures(text)[row]
    parameters, multiply_adds = REFERENCE[row]
    assert float(ours.parameters) == pytest.approx(parameters, rel=0.005)
    assert float(ours.multiply_adds) == pytest.approx(multiply_adds, rel=0.02)


@pytest.mark.parametrize("row", dict.fromkeys((*ROWS, *PRINTED)))
def test_a_config_quotes_the_published_ap(row: str) -> None:
    tree = ast.parse((config_dir() / f"{row}.py").read_text(encoding="utf-8"))
    sentence = " ".join((ast.get_docstring(tree) or "").split())
    assert "not measured here" in sentence
    val, test_dev = published_ap(row, VAL), published_ap(row, TEST_DEV)
    if val is not None:
        assert re.search(rf"(here: )?{val:.1f}(?(1)| on val2017)", sentence)
    if test_dev is not None:
        assert f"{test_dev:.1f} on test-dev" in sentence


def test_every_config_that_is_meant_to_reach_a_row_is_in_the_zoo() -> None:
    """Ablations and baselines only with published weights; no small model, no run of our own."""
    own = re.compile(r"(ablations|baselines)/|small|\.yaml$|yolof_r50_c5_3x")
    names = {name.removesuffix(".py") for name in config_names() if not own.search(name)}
    assert names == {name for name in ROWS if not own.search(name)}
    assert all(ROWS[name].weights is not None for name in set(ROWS) - names)


@pytest.mark.parametrize("row", [row for row in ROWS if re.match("atss/.*_ms_2x", row)])
def test_atss_says_that_its_published_ap_is_of_another_recipe(text: str, row: str) -> None:
    """Its authors' has other weights to start from and another warm-up."""
    tree = ast.parse((config_dir() / f"{row}.py").read_text(encoding="utf-8"))
    sentence = ast.get_docstring(tree) or ""
    assert "ATSS's authors start from" in sentence or "Its recipe differs" in sentence
    section = text.partition("## ATSS")[2].partition("\n## ")[0]
    assert "The published AP is that of other recipes" in section
