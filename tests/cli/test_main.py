"""The command ``vfnet-yolof`` as a whole: its table, its help, and how mistakes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vfnet_yolof.cli.main import COMMANDS, main, told
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.data.loader import DataLoadingError
from vfnet_yolof.engine.ending import (
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_SIGNAL,
    OutputError,
    StopRequest,
    ctrl_c_answered,
)
from vfnet_yolof.utils import __version__


def test_the_table_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and entry.summary in text for name, entry in COMMANDS.items())
    assert main([]) == 0
    assert capsys.readouterr().out == text
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: vfnet-yolof {name}")
    assert f"\n  vfnet-yolof {name}" in text or f"\n    vfnet-yolof {name}" in text


def test_help_needs_neither_torch_nor_detectron2(repository: Path) -> None:
    """All help texts in one process, in which these cannot be imported."""
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'detectron2', 'numpy'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(repository / 'projects')!r})\n"
        "from vfnet_yolof.cli.main import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert main(['train', 'vfnet/vfnet_small.py']) == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: ")
    assert "is not installed: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == EXIT_REFUSED
    assert "no command 'trian'. There are: train, evaluate" in capsys.readouterr().err


def test_the_ranking_study_is_found_among_the_studies(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", "ranking", "--help"])
    assert ended.value.code == 0
    assert "vfnet-yolof ranking" in capsys.readouterr().out


def test_only_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == EXIT_REFUSED
    assert capsys.readouterr().err.endswith("arguments are required: MODEL\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("wrong"), EXIT_REFUSED),
        (ValueError("wrong"), EXIT_REFUSED),
        (FileNotFoundError("wrong"), EXIT_REFUSED),
        (DataLoadingError("wrong"), EXIT_FAILED),
        (OutputError("wrong"), 4),
    ],
)
def test_mistakes_are_one_line(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> int:
        raise error

    assert told(action) == status
    assert capsys.readouterr().err == "error: wrong\n"
    assert told(action, refused=1) == (1 if status == EXIT_REFUSED else status)


def test_other_errors_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise AssertionError("a bug")

    def interrupted() -> int:
        raise KeyboardInterrupt

    def needs(name: str) -> int:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(AssertionError):
        told(fails)
    with pytest.raises(ModuleNotFoundError):
        told(lambda: needs("nobody_knows"))
    assert told(interrupted) == EXIT_SIGNAL + 2
    capsys.readouterr()
    assert told(lambda: needs("detectron2.layers")) == EXIT_REFUSED
    assert "vfnet-yolof install-detectron2" in capsys.readouterr().err


@pytest.fixture
def pythons_ctrl_c() -> Iterator[None]:
    """Python's own handler, which worker processes of the suite do not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("pythons_ctrl_c")
@pytest.mark.parametrize("error", [TypeError, ImportError, OSError, ConfigError])
def test_ctrl_c_is_told_as_such_whatever_it_falls_into(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """A compiled module that is being imported makes a TypeError or another error of it."""

    def interrupted() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            raise error("expected a message argument") from None
        return 0

    assert told(interrupted) == EXIT_SIGNAL + signal.SIGINT
    assert capsys.readouterr().err == "error: stopped at once by Ctrl-C\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_ctrl_c_of_before_excuses_nothing(
    handler: Any, pythons_ctrl_c: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise ConfigError("wrong")

    request = StopRequest(lambda: None)
    request(signal.SIGINT, None)
    request._at -= 2.0
    with pytest.raises(KeyboardInterrupt):
        request(signal.SIGINT, None)
    signal.signal(signal.SIGINT, handler)
    capsys.readouterr()
    assert told(fails) == EXIT_REFUSED
    assert capsys.readouterr().err == "error: wrong\n"


@pytest.mark.usefixtures("pythons_ctrl_c")
def test_an_error_after_an_answered_ctrl_c_is_told_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the recording of a camera ends: what cannot be written after that is no Ctrl-C."""

    def recorded() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            ctrl_c_answered()
        raise OutputError("wrong")

    assert told(recorded) == 4
    assert capsys.readouterr().err == "error: wrong\n"
