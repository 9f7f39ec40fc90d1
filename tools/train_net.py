#!/usr/bin/env python3
"""Train or evaluate a detector; --help shows how."""

import signal
import sys

from vfnet_yolof.utils.quiet import keep_warnings_off_console

if __name__ == "__main__":
    keep_warnings_off_console()  # of what is imported next
    from vfnet_yolof.cli.training import command_line

    status = command_line()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # all is told: none of it while Python is torn down
    sys.exit(status)
