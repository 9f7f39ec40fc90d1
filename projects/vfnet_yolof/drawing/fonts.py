"""Fonts that have the letters of class names, whatever script these are in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

logger = logging.getLogger(f"detectron2.{__name__}")

# Comes with matplotlib, which Detectron2 needs; it has accents, Greek, Cyrillic and more.
DEFAULT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")

_WITH_EVERY_NAME = "0123456789% "  # what stands beside a name
_PLACEHOLDERS = ("lastresort", "adobeblank")  # have every letter, and the same image for all


@lru_cache(maxsize=16)
def fonts_for(names: tuple[str, ...]) -> tuple[Path, ...]:
    """A font file for each name: DejaVu Sans, or the system's first one that has all its letters.

    One warning lists the names that no font can draw; they get DejaVu Sans, which shows an empty
    box for a letter that it lacks.
    """
    chosen = {name: DEFAULT for name in names if _has(DEFAULT, name)}
    missing = [name for name in dict.fromkeys(names) if name not in chosen]
    for font in _system_fonts() if missing else ():
        found = [name for name in missing if _has(font, name)]
        chosen |= dict.fromkeys(found, font)
        missing = [name for name in missing if name not in chosen]
        if not missing:
            break
    if missing:
        logger.warning(
            "No font on this system has all letters of the class names %s: they are drawn with "
            "empty boxes. Install a font that has them, or copy its file to "
            "~/.local/share/fonts (on Linux).",
            ", ".join(missing),
        )
    return tuple(chosen.get(name, DEFAULT) for name in names)


@lru_cache(maxsize=64)
def sized(font: Path, size: int) -> ImageFont.FreeTypeFont:
    """The font at ``size`` px."""
    return ImageFont.truetype(font, size)


def _system_fonts() -> Sequence[Path]:
    """Upright fonts of normal weight come first; the order is the same in every call."""
    fonts = [Path(path) for path in font_manager.findSystemFonts()]
    return sorted((f for f in fonts if not _is_placeholder(f)), key=lambda f: (_rank(f), str(f)))


def _is_placeholder(font: Path) -> bool:
    name = font.stem.lower().replace(" ", "").replace("-", "")
    return any(word in name for word in _PLACEHOLDERS)


def _rank(font: Path) -> int:
    name = font.stem.lower()
    if any(word in name for word in ("bold", "black", "light", "thin", "italic", "oblique")):
        return 2
    return 0 if "regular" in name else 1


def _has(font: Path, name: str) -> bool:
    letters = _letters(font)
    return all(ord(c) in letters or not c.isprintable() for c in name + _WITH_EVERY_NAME)


@lru_cache(maxsize=8)
def _letters(font: Path) -> frozenset[int]:
    """Code points of a font, of the first face where a file has several."""
    try:
        return frozenset(FT2Font(str(font)).get_charmap())
    except (OSError, RuntimeError):  # fonts of pixels, damaged ones, ones that went away
        return frozenset()
