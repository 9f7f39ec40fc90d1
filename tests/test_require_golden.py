"""``--require-golden``: what the suite must have compared with reference numbers to pass."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TEST = '@pytest.mark.golden("{0}")\ndef test_{0}(): pass\n'
DETECTORS = ("vfnet", "gfl", "yolof", "retinanet", "atss", "foveabox", "reppoints", "ssd")
ALL = "import pytest\n" + "".join(TEST.format(name) for name in DETECTORS)
BLOCK = "@pytest.mark.golden\ndef test_a_building_block(): {}\n"


@pytest.fixture
def run(pytester: pytest.Pytester, data_dir: Path):
    """Runs tests under the rules of this suite."""
    pytester.makeconftest((data_dir.parent / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n    golden(detector)\n    gpu\n")

    def run(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(tests)
        return pytester.runpytest("--assert=plain", *options)  # plain: much faster

    return run


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "with a worker"])
def test_every_detector(run, workers) -> None:
    result = run(ALL + BLOCK.format("pass"), "--require-golden", *workers)
    assert result.ret == pytest.ExitCode.OK
    each = ", ".join(f"{name} 1" for name in DETECTORS)
    result.stdout.fnmatch_lines(f"golden tests passed: {len(DETECTORS) + 1} ({each})")


@pytest.mark.parametrize("name", DETECTORS)
def test_one_detector_less(run, name: str) -> None:
    result = run(ALL.replace(TEST.format(name), "") + BLOCK.format("pass"), "--require-golden")
    result.assert_outcomes(passed=len(DETECTORS))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(f"no golden test of {name} passed")


def test_a_skipped_one(run) -> None:
    result = run(ALL + BLOCK.format('pytest.skip("no numbers here")'), "--require-golden")
    result.assert_outcomes(passed=len(DETECTORS), skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("skipped: *::test_a_building_block")


def test_one_that_is_expected_to_fail(run) -> None:
    expected = ALL.replace("test_vfnet(): pass", "test_vfnet(): pytest.xfail()")
    result = run(expected, "--require-golden")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["no golden test of vfnet passed", "skipped: *::test_vfnet"])


def test_no_detector_of_that_name(run) -> None:
    result = run("import pytest\n" + TEST.format("fcos"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*('fcos',) after golden names no detector; write one of vfnet, *")


def test_without_the_option_nothing_is_asked_for(run) -> None:
    assert run("def test_other(): pass").ret == pytest.ExitCode.OK
