"""Fixtures and rules for the whole suite."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(__file__).resolve().parent / "data"

_golden_passed = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data files that belong to the suite; `units/` holds the golden unit cases."""
    return DATA


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with data too large for the repository; the test is skipped where it is absent."""
    folder = Path(os.environ.get("VFNET_YOLOF_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the shared data: no folder {folder} (VFNET_YOLOF_SHARED names another)")
    return folder


@pytest.fixture(autouse=True)
def _restore_import() -> Iterator[None]:
    """Undo LazyConfig's import hook, which stays in place when a config file raises."""
    original = builtins.__import__
    yield
    builtins.__import__ = original


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-golden",
        action="store_true",
        help="fail unless at least one test marked golden passed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_golden_passed] = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Unlike a marker, a property is part of the report, which workers send to the main process.
        if item.get_closest_marker("golden"):
            item.user_properties.append(("golden", True))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


class _GoldenCount:
    """Counts the golden tests that passed, in the process that sees all reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and ("golden", True) in report.user_properties:
            self.config.stash[_golden_passed] += 1


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_GoldenCount(session.config))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or not config.getoption("--require-golden"):
        return
    if config.stash[_golden_passed] == 0 and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    passed = config.stash[_golden_passed]
    if config.getoption("--require-golden") and passed == 0:
        terminalreporter.section("no golden test passed", red=True)
        terminalreporter.line("--require-golden asks for at least one test marked golden to pass.")
    else:
        terminalreporter.line(f"golden tests passed: {passed}")
