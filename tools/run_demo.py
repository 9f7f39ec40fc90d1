#!/usr/bin/env python
"""Train a small VFNet on the embedded shapes, evaluate it and draw ten images."""

import sys

from vfnet_yolof.cli.demo import command_line

if __name__ == "__main__":
    sys.exit(command_line())
