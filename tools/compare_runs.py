#!/usr/bin/env python
"""Train several configs with several seeds on the same data and tabulate the results, or compare
averaged weights with each of the checkpoints that they are the mean of.

    python tools/compare_runs.py --configs vfnet/vfnet_small.py baselines/fcos_small.py \
        --seeds 0 1 2 --output output/bccd --markdown docs/bccd.md -- \
        --train-json train.json --train-images images --val-json val.json --val-images images

What follows ``--`` goes to each ``tools/train_net.py``. A finished run is not repeated, an
interrupted one goes on where it stopped.

    python tools/compare_runs.py --average output/vfnet_small_swa_shapes

trains nothing: it evaluates ``model_swa.pth`` and its parts, of runs that were trained with
``train.swa.keep_parts=True``.
"""

from vfnet_yolof.cli.compare import compare_tool
from vfnet_yolof.cli.main import console

if __name__ == "__main__":
    console(lambda: compare_tool(__doc__))
