"""configs/MODEL_ZOO.md and the docstrings of the configs say what the table of rows says."""

import ast
import re

import pytest
from vfnet_yolof.analysis.model_zoo_page import (
    DESCRIBED,
    FILE,
    REFERENCE,
    document,
    measure,
    read_figures,
)
from vfnet_yolof.config.packaged import config_dir, config_names
from vfnet_yolof.model_zoo.table import ROWS


@pytest.fixture(scope="module")
def text() -> str:
    return (config_dir() / FILE).read_text(encoding="utf-8")


def test_is_what_the_tool_makes_of_its_figures(text: str) -> None:
    """Everything but the figures, which take a minute to count."""
    figures = read_figures(text)
    assert set(figures) == set(DESCRIBED)
    assert document(figures) == text


@pytest.mark.parametrize("row", ["vfnet/vfnet_r50_dcn_fpn_ms_2x", "yolof/yolof_r50_dc5_1x"])
def test_some_figures_are_current(text: str, row: str) -> None:
    assert measure([row])[row] == read_figures(text)[row]


@pytest.mark.slow
def test_all_figures_are_current(text: str) -> None:
    assert document(measure()) == text


@pytest.mark.parametrize("row", REFERENCE)
def test_figures_are_the_references(text: str, row: str) -> None:
    ours = read_figures(text)[row]
    parameters, multiply_adds = REFERENCE[row]
    assert float(ours.parameters) == pytest.approx(parameters, rel=0.005)
    assert float(ours.multiply_adds) == pytest.approx(multiply_adds, rel=0.02)


@pytest.mark.parametrize("row", ROWS)
def test_a_config_quotes_the_published_ap(row: str) -> None:
    tree = ast.parse((config_dir() / f"{row}.py").read_text(encoding="utf-8"))
    sentence = " ".join((ast.get_docstring(tree) or "").split())
    assert "not measured here" in sentence
    published = ROWS[row]
    if published.val is not None:
        assert re.search(rf"(here: )?{published.val:.1f}(?(1)| on val2017)", sentence)
    if published.test_dev is not None:
        assert f"{published.test_dev:.1f} on test-dev" in sentence


def test_every_published_row_is_in_the_zoo() -> None:
    """Whatever is no ablation, baseline, small model or longer run of our own."""
    own = re.compile(r"(ablations|baselines)/|small|\.yaml$|yolof_r50_c5_3x")
    names = {name.removesuffix(".py") for name in config_names() if not own.search(name)}
    assert names == set(ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if re.match("atss/.*_ms_2x", row)])
def test_atss_says_that_its_published_ap_is_of_another_recipe(text: str, row: str) -> None:
    """Its authors' has other weights to start from and another warm-up."""
    tree = ast.parse((config_dir() / f"{row}.py").read_text(encoding="utf-8"))
    sentence = ast.get_docstring(tree) or ""
    assert "ATSS's authors start from" in sentence or "Its recipe differs" in sentence
    section = text.partition("## ATSS")[2].partition("\n## ")[0]
    assert "The published AP is that of other recipes" in section
