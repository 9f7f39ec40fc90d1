#!/usr/bin/env python
"""Draw training images as a config augments them: ``vfnet-yolof show-augmentations``.

With ``dataloader.train.dataset.names=shapes_train`` any config draws the built-in shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.main import main as run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return run(["show-augmentations", *("--output" if x == "-o" else x for x in given)])


if __name__ == "__main__":
    console(main)
