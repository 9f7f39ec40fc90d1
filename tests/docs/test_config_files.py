"""Config files in README and documentation: what is named exists, and what is shown works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from detectron2.config import instantiate
from docs_pages import DOCS, Block, code_blocks
from vfnet_yolof.config.packaged import config_dir
from vfnet_yolof.config.read import RunFlags, read
from vfnet_yolof.config.yaml_files import SECTIONS

REPOSITORY = DOCS.parent
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *(config_dir() / name for name in ("MODEL_ZOO.md", "PUBLISHED.md")),
    *sorted(DOCS.rglob("*.md")),
]
FOLDERS = "|".join(path.name for path in config_dir().iterdir() if path.is_dir())
# Also of several files: ablations/vfnet_t2_*.py
NAMED = re.compile(rf"(?<![\w/])(?:configs/)?((?:{FOLDERS})/[\w*/]+\.(?:py|yaml))\b")
FROM_PACKAGED = re.compile(r"\b(import_from|load_config)\(")
# Blocks of "Extend" are trained in test_extend.py.
SHOWN = [
    (f"{page.stem}.md", number, block)
    for page in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(code_blocks(page.name))
    if block.language == "python" and FROM_PACKAGED.search(block.code)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_config_that_is_named_exists(page: Path) -> None:
    names = set(NAMED.findall(page.read_text(encoding="utf-8")))
    assert [name for name in sorted(names) if not any(config_dir().glob(name))] == []


def test_names_are_found() -> None:
    assert sum(len(NAMED.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 100


def test_configs_that_are_shown_can_be_saved_anywhere() -> None:
    """A relative import would need a file beside, so the page's text alone is no config."""
    pages = [page.name for page in PAGES if re.search(r"from \.+\w", page.read_text("utf-8"))]
    assert pages == ["training.md"]  # which says what relative imports are
    assert {page for page, _, _ in SHOWN} == {"backbones.md", "training.md"}


@pytest.mark.parametrize(
    "block", [block for _, _, block in SHOWN], ids=[f"{page}-{n}" for page, n, _ in SHOWN]
)
def test_a_config_that_is_shown_is_whole(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = []
    if "TimmBackbone" in block.code:
        pytest.importorskip("timm")
        changes = ["model.backbone.bottom_up.pretrained=False"]  # nothing is downloaded
    assert block.title.endswith(".py")
    (tmp_path / block.title).write_text(block.code)
    monkeypatch.chdir(tmp_path)
    cfg = read(block.title, changes, RunFlags()).cfg
    assert set(SECTIONS) <= set(cfg)
    assert instantiate(cfg.model).num_classes == cfg.model.num_classes
    assert instantiate(cfg.lr_multiplier)(0.0) <= 1
    assert cfg.train.output_dir == f"output/{block.title.removesuffix('.py')}"
