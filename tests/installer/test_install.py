"""The Detectron2 installer: what it refuses, what it changes, and when it does nothing."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import types
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
from vfnet_yolof.installer import install as installer
from vfnet_yolof.installer.install import Installed, InstallError
from vfnet_yolof.installer.repairs import PYPROJECT, REPAIRS, STAND_IN, Repair


def write_archive(path: Path, members: Iterable[tarfile.TarInfo]) -> Path:
    """A gzipped tar archive of empty members, or of `content` where a member has that attribute."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def plain_file(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 3
    return member


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Records the calls of pip instead of making them."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(installer, "run_pip", lambda *arguments, env=None: calls.append(arguments))
    return calls


class TestRepairs:
    def source(self, folder: Path, text: str) -> Path:
        (folder / "module.py").write_text(text)
        return folder

    def test_replaces_every_expected_occurrence(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, "a = np.int\nb = np.int\n")
        installer.apply_repairs(source, [Repair("module.py", "np.int", "int", "removed", count=2)])
        assert (source / "module.py").read_text() == "a = int\nb = int\n"

    @pytest.mark.parametrize("text", ["a = 1\n", "a = np.int\nb = np.int\n"])
    def test_a_text_found_too_rarely_or_too_often_is_an_error(
        self, tmp_path: Path, text: str
    ) -> None:
        source = self.source(tmp_path, text)
        with pytest.raises(InstallError, match=r"module\.py.*'np\.int' should occur 1 time"):
            installer.apply_repairs(source, [Repair("module.py", "np.int", "int", "removed")])
        assert (source / "module.py").read_text() == text

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InstallError, match=r"module\.py"):
            installer.apply_repairs(tmp_path, [Repair("module.py", "a", "b", "removed")])

    def test_no_repair_undoes_another(self) -> None:
        """Applied in order, no replacement brings back a text that a later one looks for."""
        for position, repair in enumerate(REPAIRS):
            for later in REPAIRS[position + 1 :]:
                if later.path == repair.path and later.old in repair.new:
                    assert later.old in repair.old, (repair, later)

    def test_the_fingerprint_changes_with_the_repairs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = installer.fingerprint()
        monkeypatch.setattr(installer, "REPAIRS", REPAIRS[1:])
        assert installer.fingerprint() != before


class TestStandIn:
    @pytest.fixture
    def module(self) -> types.ModuleType:
        module = types.ModuleType("_C")
        exec(STAND_IN.replace("{fingerprint}", "abc"), module.__dict__)
        return module

    def test_answers_what_the_environment_report_asks(self, module: types.ModuleType) -> None:
        assert isinstance(module.get_compiler_version(), str)
        assert isinstance(module.get_cuda_version(), str)
        assert module.has_cuda() is False

    @pytest.mark.parametrize("kernel", ["InstanceAnnotation", "nms_rotated", "deform_conv_forward"])
    def test_a_missing_kernel_says_so_when_called(
        self, module: types.ModuleType, kernel: str
    ) -> None:
        with pytest.raises(RuntimeError, match=rf"detectron2\._C\.{kernel} is a compiled operator"):
            getattr(module, kernel)(1, 2)


class TestHash:
    def test_accepts_the_expected_hash(self, tmp_path: Path) -> None:
        archive = tmp_path / "a.tar.gz"
        archive.write_bytes(b"content")
        installer.check_hash(archive, hashlib.sha256(b"content").hexdigest())

    def test_refuses_any_other_file(self, tmp_path: Path, no_pip: list) -> None:
        archive = write_archive(tmp_path / "a.tar.gz", [plain_file("pb1-detectron2-0.6/setup.py")])
        with pytest.raises(InstallError, match=r"a\.tar\.gz is not the source archive.*SHA-256"):
            installer.build_wheel(tmp_path / "wheels", archive)
        assert no_pip == []
        assert not (tmp_path / "wheels").exists()

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InstallError, match=r"absent\.tar\.gz cannot be read"):
            installer.check_hash(tmp_path / "absent.tar.gz")


class TestUnpack:
    def test_returns_the_one_folder(self, tmp_path: Path) -> None:
        archive = write_archive(tmp_path / "a.tar.gz", [plain_file("root/package/module.py")])
        root = installer.unpack(archive, tmp_path / "out")
        assert root == tmp_path / "out" / "root"
        assert (root / "package" / "module.py").read_bytes() == b"xxx"

    @pytest.mark.parametrize(
        "member",
        [
            plain_file("../outside.py"),
            plain_file("root/../../outside.py"),
            plain_file("/outside.py"),
            link("root/link", "/etc"),
            link("root/hard", "root/setup.py", tarfile.LNKTYPE),
            link("root/pipe", "", tarfile.FIFOTYPE),
        ],
        ids=lambda member: member.name,
    )
    def test_nothing_is_written_when_a_member_is_not_plain(
        self, tmp_path: Path, member: tarfile.TarInfo
    ) -> None:
        archive = write_archive(tmp_path / "a.tar.gz", [plain_file("root/setup.py"), member])
        with pytest.raises(InstallError, match="Nothing was unpacked"):
            installer.unpack(archive, tmp_path / "out" / "deep")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]

    def test_a_broken_archive_is_named(self, tmp_path: Path) -> None:
        archive = write_archive(tmp_path / "a.tar.gz", [plain_file("root/setup.py")])
        archive.write_bytes(archive.read_bytes()[:40])
        with pytest.raises(InstallError, match=r"a\.tar\.gz cannot be unpacked"):
            installer.unpack(archive, tmp_path / "out")

    def test_two_folders_are_refused(self, tmp_path: Path) -> None:
        members = [plain_file("one/setup.py"), plain_file("two/setup.py")]
        archive = write_archive(tmp_path / "a.tar.gz", members)
        with pytest.raises(InstallError, match=r"one folder, but holds \['one', 'two'\]"):
            installer.unpack(archive, tmp_path / "out")


class TestWhenToInstall:
    def test_a_working_detectron2_is_left_alone(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        no_pip: list[tuple[str, ...]],
    ) -> None:
        monkeypatch.setattr(installer, "find_installed", lambda: Installed("0.6", "/some/where"))
        assert installer.main([]) == 0
        assert no_pip == []
        assert "Detectron2 0.6 in /some/where: nothing to do" in capsys.readouterr().out

    def test_a_foreign_one_that_fails_is_reported_not_replaced(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        no_pip: list[tuple[str, ...]],
    ) -> None:
        broken = Installed("0.6", "/some/where", problem="AttributeError: LINEAR")
        monkeypatch.setattr(installer, "find_installed", lambda: broken)
        assert installer.main([]) == 1
        assert no_pip == []
        error = capsys.readouterr().err
        assert "AttributeError: LINEAR" in error
        assert "--force" in error

    @pytest.mark.parametrize(
        ("installed", "needed"),
        [
            (None, True),
            (Installed("0.6", "/d2"), False),
            (Installed("0.6", "/d2", repairs="of another time"), True),
            (Installed("0.6", "/d2", problem="ImportError", repairs="of another time"), True),
            (Installed("0.6", "/d2", repairs=installer.fingerprint()), False),
        ],
        ids=["none", "foreign", "outdated", "outdated and broken", "ours"],
    )
    def test_is_needed(self, installed: Installed | None, needed: bool) -> None:
        assert installer.is_needed(installed) is needed

    def test_the_probe_finds_the_detectron2_of_this_environment(self) -> None:
        detectron2 = pytest.importorskip("detectron2")
        found = installer.find_installed()
        assert found is not None
        assert asdict(found) | {"repairs": ""} == {
            "version": detectron2.__version__,
            "folder": str(Path(detectron2.__file__).parent),
            "problem": "",
            "repairs": "",
        }


def test_the_command_line_gives_one_line_of_error(tmp_path: Path, repository: Path) -> None:
    """No traceback for a wrong archive, and exit status 1."""
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"not an archive")
    result = subprocess.run(
        [
            *(sys.executable, str(repository / "tools" / "install_detectron2.py")),
            *("--archive", str(wrong), "--wheel-dir", str(tmp_path / "wheels")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("install_detectron2: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "wheels").exists()


def test_the_build_description_asks_for_nothing_that_cannot_be_installed() -> None:
    """Upstream's exact pin of black and its upper bounds would not resolve beside current ones."""
    assert "black" not in PYPROJECT
    assert "==" not in PYPROJECT
    assert ",<" not in PYPROJECT
