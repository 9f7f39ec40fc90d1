"""Which processor this is, and whether it is made for numbers of 8 bits."""

from __future__ import annotations

import logging
import platform
import subprocess
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
_KEYS = ("flags", "Features")  # on x86 and on Arm
_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def has_int8_instructions() -> bool | None:
    """Whether it multiplies and adds 8-bit numbers at once (VNNI, AMX, Arm's dot product).

    Returns None where that cannot be told.
    """
    system = platform.system()
    if system == "Linux":
        return _from_cpuinfo(_CPUINFO)
    if system == "Darwin":
        arm = _sysctl("hw.optional.arm.FEAT_DotProd")
        if arm is not None:
            return arm == "1"
        features = _sysctl("machdep.cpu.leaf7_features")
        return None if features is None else "AVX512VNNI" in features.split()
    return None


def int8_warning() -> str | None:
    """One line where 8 bits may not pay, else None."""
    known = has_int8_instructions()
    if known:
        return None
    if known is None:
        return (
            "This system does not tell whether its processor has instructions for 8-bit numbers "
            "(VNNI, AMX, Arm's dot product); without them an int8 file may be slower than fp32."
        )
    return (
        "This processor has no instructions for 8-bit numbers (VNNI, AMX, Arm's dot product): an "
        "int8 file may be slower than fp32 here, and less exact, as sums of 16 bits can overflow."
    )


def name() -> str:
    """What the processor calls itself, or else its kind."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    entries = (line.partition(":") for line in lines)
    found = (text.strip() for key, _, text in entries if key.strip() == "model name")
    return next(found, "") or platform.processor() or platform.machine()


@cache
def warn_of_int8() -> None:
    """Log :func:`int8_warning` where there is one, once in a process."""
    if warning := int8_warning():
        logger.warning(warning)


def _from_cpuinfo(path: Path) -> bool | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    entries = (line.partition(":") for line in lines)
    flags = {x for key, _, text in entries if key.strip() in _KEYS for x in text.split()}
    return bool(flags & _FLAGS) if flags else None


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
