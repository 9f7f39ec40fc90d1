"""What `mkdocs build` does besides reading ``docs/``: hooks of MkDocs, and one for docstrings.

Pages that lie elsewhere in the repository (the model zoo, the changelog, ...) become pages of the
site, so that there is one copy of each.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]

# Pages of the site that are files of the repository outside of docs/.
ELSEWHERE = {
    "configs/MODEL_ZOO.md": "model_zoo.md",
    "configs/PUBLISHED.md": "published.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:py:)?(?:class|func|meth|mod|attr|data|exc|obj):`~?\.?([^`]+)`")

# Several parameters, and their description down to the next one.
_TOGETHER = re.compile(
    r"(?m)^    (?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+):(?P<text>.*\n?(?:^ {5,}.*\n?)*)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `ELSEWHERE`."""
    for source, page in ELSEWHERE.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links, which are right in the repository, to where the pages are on the site."""
    pages = {page: source for source, page in ELSEWHERE.items()}
    here = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def repair(match: re.Match[str]) -> str:
        text, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match.group()
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        to = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if to is None:  # a file that is no page: its name says where it is
            return text if text.startswith("`") else f"`{text}`"
        to = posixpath.relpath(to, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({to}{'#' if anchor else ''}{anchor})"

    return _LINK.sub(repair, markdown)


class RestRoles(griffe.Extension):
    """Make Markdown of what the docstrings have of reStructuredText.

    Roles (``:class:`.Match` ``) become code, ``::`` goes, and parameters that are described
    together (``alpha, gamma: ...``) stand one by one.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            text = re.sub(r"(?m)^(\s*)::$", r"\1", text).replace("::\n\n", ":\n\n")
            obj.docstring.value = _TOGETHER.sub(_one_by_one, text)


def _one_by_one(match: re.Match[str]) -> str:
    names, text = match.group("names").split(", "), match.group("text")
    return "".join(f"    {name}:{text}" for name in names)
