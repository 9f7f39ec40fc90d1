"""Every command line of README and documentation is one that the commands understand."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from benchmarks.cli import argument_parser as benchmark_parser
from docs_pages import DOCS
from vfnet_yolof.cli.main import COMMANDS
from vfnet_yolof.cli.training import argument_parser

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
TRAIN_NET = "python tools/train_net.py"
BENCHMARK = "python tools/benchmark.py"


def command_lines(text: str, program: str) -> list[list[str]]:
    """The arguments of each line of code that starts with ``program``; forms like [this] not."""
    text = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(rf"(?m)^\s*(?:PYTHONPATH=\. )?{re.escape(program)} (.*)$", text)
    return [shlex.split(line, comments=True) for line in lines if " [" not in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    for name, *rest in command_lines(page.read_text(encoding="utf-8"), "vfnet-yolof"):
        assert name in COMMANDS, name
        entry = COMMANDS[name]
        if entry.name:  # install-detectron2 reads its arguments itself
            module = importlib.import_module(f"vfnet_yolof.cli.{entry.module}")
            try:
                getattr(module, entry.name).parsed(name, rest)
            except SystemExit:
                pytest.fail(f"{page.name}: vfnet-yolof {name} {shlex.join(rest)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_of_train_net_are_known(page: Path) -> None:
    for arguments in command_lines(page.read_text(encoding="utf-8"), TRAIN_NET):
        try:
            argument_parser().parse_intermixed_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {TRAIN_NET} {shlex.join(arguments)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_of_the_benchmark_are_known(page: Path) -> None:
    for arguments in command_lines(page.read_text(encoding="utf-8"), BENCHMARK):
        try:
            benchmark_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {BENCHMARK} {shlex.join(arguments)}")


def test_there_are_commands_to_look_at() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(command_lines(text, "vfnet-yolof")) for text in texts) > 30
    assert sum(len(command_lines(text, TRAIN_NET)) for text in texts) > 5
    assert sum(len(command_lines(text, BENCHMARK)) for text in texts) > 4
