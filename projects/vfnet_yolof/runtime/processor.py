"""Whether this processor is made for numbers of 8 bits."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

_X86 = {"avx512_vnni", "avx_vnni", "amx_int8"}
_ARM = {"asimddp", "i8mm"}


def has_int8_instructions() -> bool | None:
    """Whether it multiplies and adds 8-bit numbers at once (VNNI, AMX, Arm's dot product).

    Returns None where that cannot be told.
    """
    system = platform.system()
    if system == "Linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        flags = {
            flag
            for line in lines
            if line.partition(":")[0].strip() in ("flags", "Features")
            for flag in line.partition(":")[2].split()
        }
        return bool(flags & (_X86 | _ARM)) if flags else None
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


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
