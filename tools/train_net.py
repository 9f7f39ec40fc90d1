#!/usr/bin/env python3
"""Train or evaluate a detector; --help shows how."""

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.train import train_net

if __name__ == "__main__":
    console(train_net)
