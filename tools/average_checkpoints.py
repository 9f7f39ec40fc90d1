#!/usr/bin/env python3
"""Write the mean of several checkpoints of one model.

    python tools/average_checkpoints.py average.pth run/model_0000999.pth run/model_0001999.pth

Takes checkpoints of training runs (their weights, not their moving averages) and plain state
dicts. The files are read one at a time and summed in float64.
"""

import argparse
import sys

import torch
from vfnet_yolof.checkpoint.average import average_checkpoints
from vfnet_yolof.checkpoint.rules import CheckpointError
from vfnet_yolof.utils.files import write_atomically


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", help="file to write")
    parser.add_argument("inputs", nargs="+", help="checkpoints to average")
    args = parser.parse_args(argv)
    try:
        content = average_checkpoints(args.inputs)
        write_atomically(args.output, lambda file: torch.save(content, file))
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.output}, the mean of {len(args.inputs)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
