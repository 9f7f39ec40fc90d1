"""The code blocks of the documentation's pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(r'(?ms)^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$')


class Block(NamedTuple):
    """A fenced block; ``title`` is the name of the file that it is, if any."""

    language: str
    title: str
    code: str


def code_blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in its order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [Block(*match.groups(default="")) for match in _BLOCK.finditer(text)]
