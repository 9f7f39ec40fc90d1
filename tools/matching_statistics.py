#!/usr/bin/env python
"""How many anchors each object learns from, by its size: Max-IoU, ATSS, Top-1 and Uniform.

    python tools/matching_statistics.py --config-file yolof/yolof_small_overfit.py \\
        --weights output/yolof_small_overfit/model_final.pth \\
        --json instances_train2017.json --images train2017 --output output/yolof_fig6

Figure 6 of YOLOF's paper, with predictions at initialisation and after training, before and after
the rule that ignores positives of little overlap. A table, a plot and all counts are written.
"""

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.reports import matching_tool

if __name__ == "__main__":
    console(lambda: matching_tool(__doc__))
