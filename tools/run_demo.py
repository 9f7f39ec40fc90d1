#!/usr/bin/env python
"""Train a small VFNet on the embedded shapes, evaluate it and draw ten images."""

from vfnet_yolof.cli.demo import command_line
from vfnet_yolof.cli.main import console

if __name__ == "__main__":
    console(command_line)
