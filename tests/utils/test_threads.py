"""How torch's threads wait, and how many compute, where other programs take part of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vfnet_yolof.utils import threads

Output = pytest.CaptureFixture[str]


def plain_environment() -> dict[str, str]:
    """This process's, as if the user had said nothing of threads."""
    said = (*threads.WAITING, *threads.NUMBER)
    return {name: value for name, value in os.environ.items() if name not in said}


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """Pretends to be on four cores, so many of which others take; numbers of threads that are set.

    Every thread number that is set changes what torch says, and nothing else.
    """
    now = [4]
    monkeypatch.setattr(threads, "_begin", threads.Sample(100.0, 50.0, 5.0))
    monkeypatch.setattr(threads, "_cores", lambda: {0, 1, 2, 3})
    for name in threads.NUMBER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)

    def pretend(busy: float) -> list[int]:
        # Ten seconds in which this process has computed for six.
        end = threads.Sample(110.0, 50.0 + 10 * busy + 6, 5.0 + 6)
        monkeypatch.setattr(threads, "_sample", lambda: end)
        return now

    return pretend


def test_threads_sleep_unless_the_user_says_otherwise() -> None:
    environment: dict[str, str] = {}
    threads.prepare(environment)
    assert environment == threads.SETTING
    for name in threads.WAITING:
        environment = {name: "what the user wants"}
        threads.prepare(environment)
        assert environment == {name: "what the user wants"}


@pytest.mark.parametrize(
    ("busy", "computing"), [(0.0, 4), (0.3, 4), (0.7, 3), (2.0, 2), (3.6, 1), (7.0, 1)]
)
def test_as_many_threads_as_cores_are_free(beside, busy: float, computing: int) -> None:
    now = beside(busy)
    said = threads.use_free_cores()
    assert now[-1] == computing
    assert bool(said) == (computing < 4)
    if said:
        assert f"{busy:.1f} of 4 cores busy, so {computing} of 4 threads compute" in said


def test_a_number_that_must_not_change_stays(beside) -> None:
    now = beside(2.0)
    said = threads.use_free_cores(fixed="With a seed")
    assert now == [4]
    assert "With a seed, all 4 threads compute" in said
    assert "OMP_NUM_THREADS=2 would be faster" in said
    assert beside(0.0) == [4]
    assert threads.use_free_cores(fixed="With a seed") == ""


@pytest.mark.parametrize("name", threads.NUMBER)
def test_the_users_number_stays(beside, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = beside(3.0)
    monkeypatch.setenv(name, "4")
    assert threads.use_free_cores() == ""
    threads.share_among(2)
    assert now == [4]


def test_without_a_measurement_nothing_changes(beside, monkeypatch: pytest.MonkeyPatch) -> None:
    now = beside(3.0)
    monkeypatch.setattr(threads, "_begin", None)  # another program's process
    assert threads.others() is None
    assert threads.use_free_cores() == ""
    assert now == [4]


def test_another_system_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_begin", None)
    monkeypatch.setattr(threads, "_STAT", Path("/nowhere/stat"))
    threads.prepare({})
    assert threads.others() is None


def test_processes_of_one_run_share_the_cores(beside) -> None:
    now = beside(0.0)
    threads.share_among(1)
    assert now == [4]
    threads.share_among(3)
    threads.share_among(3)
    assert now == [4, 1, 1]


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux's counters")
def test_what_others_compute_is_counted_and_what_we_do_is_not() -> None:
    begin = threads._sample()
    assert begin is not None
    done = subprocess.run([sys.executable, "-c", "sum(range(30_000_000))"], check=True)
    end = threads._sample()
    assert done.returncode == 0
    assert end is not None
    assert end.own - begin.own > 0.1  # a process of ours that has ended is one of us
    assert end.all - begin.all >= 0.5 * (end.own - begin.own)
    assert end.clock > begin.clock


def test_importing_the_package_changes_no_environment(repository: Path) -> None:
    program = (
        "import os; before = dict(os.environ)\n"
        "import vfnet_yolof, vfnet_yolof.cli.main\n"
        "assert dict(os.environ) == before\n"
    )
    run(repository, program)


def test_the_library_of_torch_takes_the_setting(repository: Path) -> None:
    """GNU's OpenMP, of torch's wheels for Linux, says itself how long it spins."""
    program = "from vfnet_yolof.utils import threads; threads.prepare(); import torch"
    said = run(repository, program, OMP_DISPLAY_ENV="verbose")
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another OpenMP")
    assert f"GOMP_SPINCOUNT = '{threads.SETTING['GOMP_SPINCOUNT']}'" in said
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said
    spinning = run(repository, program, OMP_DISPLAY_ENV="verbose", GOMP_SPINCOUNT="77")
    assert "GOMP_SPINCOUNT = '77'" in spinning


def run(repository: Path, program: str, **environment: str) -> str:
    """What a process says that starts with an environment without numbers of threads."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={
            **plain_environment(),
            "PYTHONPATH": str(repository / "projects"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_run_says_how_many_threads_compute(beside, toy, capfd: Output) -> None:
    now = beside(1.0)
    assert toy.run("train.max_iter=1", "train.eval_period=0") == 0  # with a seed
    assert "With a seed, all 4 threads compute" in toy.log()
    assert now == [4]
    assert toy.run("train.max_iter=2", "--seed", "-1", "--overwrite") == 0
    assert "so 3 of 4 threads compute" in toy.log()
    assert "threads: 3;" in toy.log()
    assert toy.load()["threads"] == 3
    now.append(2)
    assert toy.run("--seed", "-1", "--resume", "train.max_iter=3") == 0
    assert "Resumed with 2 threads instead of 3: sums are rounded differently" in toy.log()
    assert "OMP_NUM_THREADS=3 goes on as before" in capfd.readouterr().out
