"""Install Detectron2 0.6 from the package index, repaired for current Python packages.

Detectron2 itself is not on the package index. The source archive of the distribution
`pb1-detectron2` there holds the Python files and the model-zoo configs of release 0.6, without the
C++ sources. This command downloads it with pip, checks its hash, applies the replacements that
`vfnet_yolof.installer.repairs` lists, builds a wheel and installs that with pip. None of the
archive's own code is run on the way.

Where a working `detectron2` can be imported already, nothing is done.

    %(prog)s                 # install, if there is none
    %(prog)s --force         # install over what is there
    %(prog)s --wheel-dir D   # only build the wheel, into D
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .repairs import PYPROJECT, PYPROJECT_PATH, REPAIRS, STAND_IN, STAND_IN_PATH, Repair

DISTRIBUTION = "pb1-detectron2"
VERSION = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# What must import for an installed Detectron2 to count as working; `layers` needs the compiled
# operators or their stand-in, `data` fails on a current Pillow when it is not repaired.
PROBE = """
import json, os
import detectron2

found = {
    "version": getattr(detectron2, "__version__", "of unknown version"),
    "folder": os.path.dirname(detectron2.__file__),
}
try:
    import detectron2.layers, detectron2.data, detectron2.modeling, detectron2.evaluation
except Exception as error:
    found["problem"] = f"{type(error).__name__}: {error}"
try:
    from detectron2 import _C
except ImportError:
    pass
else:
    found["repairs"] = getattr(_C, "REPAIRS", "")
print(json.dumps(found))
"""

# pip asks a source archive's build backend for metadata before it saves the archive, and this
# archive's own answer both runs its setup.py and is one that pip rejects. This backend, put where
# pip looks for setuptools, answers in its place; it is used for the download only.
METADATA_BACKEND = f'''
import os


class _Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
        name = "{DISTRIBUTION.replace("-", "_")}-{VERSION}.dist-info"
        folder = os.path.join(metadata_directory, name)
        os.makedirs(folder)
        with open(os.path.join(folder, "METADATA"), "w") as f:
            f.write("Metadata-Version: 2.1\\nName: {DISTRIBUTION}\\nVersion: {VERSION}\\n")
        with open(os.path.join(folder, "WHEEL"), "w") as f:
            f.write("Wheel-Version: 1.0\\nGenerator: download\\nRoot-Is-Purelib: true\\n")
            f.write("Tag: py3-none-any\\n")
        return name


__legacy__ = _Backend()
'''


class InstallError(RuntimeError):
    """The installation cannot go on; the message says why and what to do."""


def run_pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    """Run this Python's pip, its output passed through.

    Raises InstallError when pip is missing or ends with an error.
    """
    if importlib.util.find_spec("pip") is None:
        raise InstallError(
            f"{sys.executable} has no pip. Run `{sys.executable} -m ensurepip` "
            "or use a virtual environment made with `python -m venv`."
        )
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, env=env, check=False)
    if result.returncode != 0:
        raise InstallError(
            f"`pip {' '.join(arguments)}` ended with exit status {result.returncode}; "
            "what pip wrote above says why."
        )


@dataclass(frozen=True)
class Installed:
    """A Detectron2 that was found.

    problem: why importing its parts fails, empty when it works.
    repairs: the fingerprint of the repairs made to it, empty when it is none of ours.
    """

    version: str
    folder: str
    problem: str = ""
    repairs: str = ""


def fingerprint() -> str:
    """Short hash of everything that this version of the installer changes in the archive."""
    changes = repr((REPAIRS, STAND_IN, PYPROJECT))
    return hashlib.sha256(changes.encode()).hexdigest()[:12]


def find_installed() -> Installed | None:
    """Look for an installed Detectron2 with a fresh interpreter; None when there is none."""
    with tempfile.TemporaryDirectory() as empty:
        # The working directory is importable for `python -c`; an empty one hides nothing.
        result = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=empty, capture_output=True, text=True, check=False
        )
    if result.returncode == 0:
        return Installed(**json.loads(result.stdout.splitlines()[-1]))
    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        return None
    folder = os.path.dirname(spec.origin) if spec.origin else "an unknown place"
    problem = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
    return Installed("of unknown version", folder, problem)


def download(folder: Path) -> Path:
    """Download the source archive into `folder` with pip and return its path."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").write_text("")
    (backend / "build_meta.py").write_text(METADATA_BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{DISTRIBUTION}=={VERSION} --hash=sha256:{SHA256}\n")
    target = folder / "download"
    run_pip(
        *("download", "--use-pep517", "--no-deps", "--no-binary", ":all:"),
        *("--no-build-isolation", "--require-hashes", "--dest", str(target)),
        *("--requirement", str(requirements)),
        env={**os.environ, "PYTHONPATH": str(backend.parent)},
    )
    archives = sorted(target.glob("*.tar.gz"))
    if len(archives) != 1:
        found = [archive.name for archive in archives]
        raise InstallError(f"pip was to save one archive of {DISTRIBUTION}, but left {found}.")
    return archives[0]


def check_hash(archive: Path, expected: str = SHA256) -> None:
    """Raise InstallError unless the file's SHA-256 is the expected one."""
    try:
        actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise InstallError(f"{archive} cannot be read: {error}") from error
    if actual != expected:
        raise InstallError(
            f"{archive} is not the source archive of {DISTRIBUTION} {VERSION}: its SHA-256 is "
            f"{actual}, expected {expected}. Nothing of it was used."
        )


def _check_member(member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise InstallError(
            f"the archive holds {member.name!r}, which is not a plain file or folder inside it. "
            "Nothing was unpacked."
        )


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a gzipped tar archive into `folder` and return the one folder it holds.

    Only plain files and folders that stay inside `folder` are accepted; anything else raises
    InstallError before a single file is written.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            for member in members:
                _check_member(member)
            if hasattr(tarfile, "data_filter"):  # 3.12, and security releases before it
                tar.extractall(folder, members, filter="data")
            else:
                tar.extractall(folder, members)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InstallError(f"{archive} cannot be unpacked: {error}") from error
    roots = list(folder.iterdir())
    if len(roots) != 1 or not roots[0].is_dir():
        names = sorted(root.name for root in roots)
        raise InstallError(f"{archive} should hold one folder, but holds {names}.")
    return roots[0]


def apply_repairs(source: Path, repairs: Sequence[Repair] = REPAIRS) -> None:
    """Apply the replacements to the files below `source`.

    Raises InstallError, naming the file and the text, where a file is missing or the text does
    not occur exactly as often as it should.
    """
    for repair in repairs:
        path = source / repair.path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InstallError(f"{repair.path} is to be repaired, but: {error}") from error
        found = text.count(repair.old)
        if found != repair.count:
            raise InstallError(
                f"{repair.path}: the text {repair.old!r} should occur {repair.count} time(s) "
                f"but occurs {found} time(s), so this repair does not fit: {repair.reason}."
            )
        path.write_text(text.replace(repair.old, repair.new), encoding="utf-8")


def write_build_files(source: Path) -> None:
    """Put our own build description in the place of the archive's, and the stand-in beside it."""
    for name in ("setup.py", "setup.cfg"):
        (source / name).unlink(missing_ok=True)
    # Upstream installs these projects as subpackages too, by mapping their folders.
    for init in sorted((source / "projects").glob("*/*/__init__.py")):
        init.parent.rename(source / "detectron2" / "projects" / init.parent.name)
    (source / PYPROJECT_PATH).write_text(PYPROJECT)
    (source / STAND_IN_PATH).write_text(STAND_IN.replace("{fingerprint}", fingerprint()))


def build_wheel(wheel_dir: Path, archive: Path | None = None) -> Path:
    """Build the repaired wheel into `wheel_dir` and return its path.

    archive: a local copy of the source archive; None downloads it. Its hash is checked either way.
    """
    with tempfile.TemporaryDirectory(prefix="detectron2-") as folder:
        work = Path(folder)
        if archive is None:
            print(f"Downloading the source archive of {DISTRIBUTION} {VERSION} ...", flush=True)
            archive = download(work)
        check_hash(archive)
        source = unpack(archive, work / "source")
        apply_repairs(source)
        write_build_files(source)
        print(f"Applied {len(REPAIRS)} repairs; building the wheel ...", flush=True)
        built = work / "wheel"
        run_pip("wheel", "--no-deps", "--wheel-dir", str(built), str(source))
        (wheel,) = built.glob("*.whl")
        wheel_dir.mkdir(parents=True, exist_ok=True)
        partial = wheel_dir / f"{wheel.name}.part"
        partial.write_bytes(wheel.read_bytes())
        os.replace(partial, wheel_dir / wheel.name)
        return wheel_dir / wheel.name


def is_needed(installed: Installed | None) -> bool:
    """Whether to install, given what was found; says why where that is not obvious.

    Raises InstallError when somebody's own Detectron2 is there but does not work.
    """
    if installed is None:
        return True
    where = f"Detectron2 {installed.version} in {installed.folder}"
    if installed.repairs and installed.repairs != fingerprint():
        print(f"{where} was repaired by another version of this installer: installing it anew.")
        return True
    if installed.problem:
        raise InstallError(
            f"{where} does not work here: {installed.problem}. "
            "Use --force to install the repaired 0.6 over it."
        )
    print(f"Found {where}: nothing to do.")
    return False


def install(archive: Path | None, force: bool) -> None:
    """Build the repaired wheel and install it with its dependencies.

    Does nothing but say so when a working Detectron2 is installed, unless `force` is set.
    Raises InstallError when the installed one does not work, or when PyTorch is missing.
    """
    if not force and not is_needed(find_installed()):
        return
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise InstallError(f"{name} is missing: run `pip install torch torchvision` first.")
    with tempfile.TemporaryDirectory(prefix="detectron2-wheel-") as wheel_dir:
        wheel = build_wheel(Path(wheel_dir), archive)
        run_pip("install", str(wheel))  # with its dependencies
        # pip leaves an installed 0.6 alone, so what may differ is put in place by a second call.
        run_pip("install", "--quiet", "--force-reinstall", "--no-deps", str(wheel))
    installed = find_installed()
    if installed is None or installed.problem:
        raise InstallError(f"Detectron2 was installed but does not work: {installed}.")
    print(f"Detectron2 {installed.version}, repaired, is now in {installed.folder}.")


def parse_arguments(
    arguments: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    """Parse the command line; `arguments` is None for that of the process."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--force", action="store_true", help="install even where a Detectron2 is found"
    )
    parser.add_argument(
        "--wheel-dir", type=Path, metavar="DIR", help="build the wheel into DIR, install nothing"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="use this copy of the source archive"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_arguments(arguments, prog)
    try:
        if options.wheel_dir is not None:
            print(f"Built {build_wheel(options.wheel_dir, options.archive)}.")
        else:
            install(options.archive, options.force)
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0
