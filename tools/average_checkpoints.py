#!/usr/bin/env python3
"""Write the mean of several checkpoints of one model.

    python tools/average_checkpoints.py average.pth run/model_0000999.pth run/model_0001999.pth

Takes checkpoints of training runs (their weights, not their moving averages) and plain state
dicts. The files are read one at a time and summed in float64.
"""

import argparse

from vfnet_yolof.cli.main import console, told
from vfnet_yolof.cli.weights import average


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", help="file to write")
    parser.add_argument("inputs", nargs="+", help="checkpoints to average")
    args = parser.parse_args(argv)
    return told(lambda: average(args.inputs, args.output), refused=1)


if __name__ == "__main__":
    console(main)
