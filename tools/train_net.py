#!/usr/bin/env python3
"""Train or evaluate a detector; --help shows how."""

import sys

from vfnet_yolof.engine import command_line

if __name__ == "__main__":
    sys.exit(command_line())
