"""Measure speed and memory, each variant beside the others in one process.

    python tools/benchmark.py inference --config-file vfnet/vfnet_r50_fpn_1x.py
    python tools/benchmark.py table --json table.json --markdown docs/performance.md

What is measured and how: docs/performance.md.
"""

import os

# The profiler, which counts the memory, is talkative; it reads this when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

from benchmarks.cli import main
from vfnet_yolof.cli.main import console
from vfnet_yolof.utils.quiet import keep_warnings_off_console

if __name__ == "__main__":
    keep_warnings_off_console()
    console(main)
