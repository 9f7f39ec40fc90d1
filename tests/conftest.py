"""Fixtures and rules for the whole suite."""

from __future__ import annotations

import builtins
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Property tests run the same examples every time, however busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(__file__).resolve().parent / "data"

# Each has tests marked ``golden("<name>")``; ``--require-golden`` asks for all of them.
GOLDEN_DETECTORS = ("vfnet", "gfl", "yolof", "retinanet", "atss", "foveabox", "reppoints", "ssd")

NO_GPU = "needs a CUDA device, and torch finds none: not run"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data files that belong to the suite; `units/` holds the golden unit cases."""
    return DATA


@pytest.fixture(scope="session")
def golden(data_dir: Path) -> Path:
    """The folder with the reference numbers of whole detectors."""
    return data_dir / "detectors"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with real images, too large for the repository; without it, the test is skipped."""
    folder = Path(os.environ.get("VFNET_YOLOF_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs real images: no folder {folder} (VFNET_YOLOF_SHARED names another)")
    return folder


@pytest.fixture
def make_toy(tmp_path: Path):
    """Trainings of the toy detector through the command line, each in a folder of its own."""
    from toy_runs import Toy

    return lambda name="run": Toy(tmp_path / name)


@pytest.fixture
def toy(make_toy):
    return make_toy()


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
        help="fail unless golden tests of every detector passed and none was skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_golden_results] = GoldenResults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Unlike a marker, a property is part of the report, which workers send to the main process.
        if marker := item.get_closest_marker("golden"):
            item.user_properties.append(("golden", _detector(item, marker)))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason=NO_GPU))


def _detector(item: pytest.Item, marker: pytest.Mark) -> str:
    """The detector that a golden test checks as a whole, or "" where it checks something else."""
    if not marker.args:
        return ""
    if len(marker.args) != 1 or marker.args[0] not in GOLDEN_DETECTORS:
        raise pytest.UsageError(
            f"{item.nodeid}: {marker.args} after golden names no detector; write one of "
            f"{', '.join(GOLDEN_DETECTORS)}, or add it to GOLDEN_DETECTORS in tests/conftest.py."
        )
    return marker.args[0]


class GoldenResults:
    """What became of the golden tests, in the process that sees all reports."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        detector = dict(report.user_properties).get("golden")
        if detector is None:
            return
        if report.skipped:  # expected failures too
            self.skipped.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed[detector] += 1

    def missing(self) -> list[str]:
        """What ``--require-golden`` asks for and did not get, a line each."""
        without = [name for name in GOLDEN_DETECTORS if not self.passed[name]]
        return [f"no golden test of {name} passed" for name in without] + [
            f"skipped: {test}" for test in self.skipped
        ]


_golden_results = pytest.StashKey[GoldenResults]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(session.config.stash[_golden_results])


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or not config.getoption("--require-golden"):
        return
    if config.stash[_golden_results].missing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    results = config.stash[_golden_results]
    missing = results.missing() if config.getoption("--require-golden") else []
    if missing:
        terminalreporter.section("golden tests are missing", red=True)
        for line in missing:
            terminalreporter.line(line)
        terminalreporter.line(
            "--require-golden asks that golden tests of every detector pass and none is skipped."
        )
    by_detector = ", ".join(f"{name} {results.passed[name]}" for name in GOLDEN_DETECTORS)
    terminalreporter.line(f"golden tests passed: {results.passed.total()} ({by_detector})")
