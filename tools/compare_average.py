#!/usr/bin/env python3
"""Evaluate averaged weights and each of the checkpoints that they are the mean of.

    python tools/train_net.py --config-file vfnet/vfnet_small_swa_shapes.py \
        train.init_checkpoint=output/vfnet_small_shapes/model_final.pth
    python tools/compare_average.py output/vfnet_small_swa_shapes

The runs must have been trained with ``train.swa.keep_parts=True``.
"""

import sys

from vfnet_yolof.analysis.compare_average import command_line

if __name__ == "__main__":
    sys.exit(command_line(__doc__))
