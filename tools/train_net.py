#!/usr/bin/env python3
"""Train or evaluate a detector; --help shows how."""

import signal
import sys

from vfnet_yolof.cli.training import command_line

if __name__ == "__main__":
    status = command_line()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # all is told: none of it while Python is torn down
    sys.exit(status)
